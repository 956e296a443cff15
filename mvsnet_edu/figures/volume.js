// Reads one pixel or one row out of the two volumes, [plane][row][column], and draws it.
function start(root, data) {
  const [width, height, planes] = data.size;
  const column = part(root, "column"), row = part(root, "row"), plane = part(root, "plane");
  const volumes = { variance: levels(data.variance), cost: levels(data.cost) };
  const truth = unpack(data.truth), colors = unpack(data.colors);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = planes;
  let drawn = -1;  // the row that the slices show

  function levels(packed) {
    const codes = unpack(packed.levels);
    return (x, y) => Array.from({ length: planes }, (_, k) => packed.low + packed.step * codes[(k * height + y) * width + x]);
  }

  function softmax(cost) {
    const least = Math.min(...cost);
    const grown = cost.map((value) => Math.exp(least - value));
    const sum = grown.reduce((a, b) => a + b, 0);
    return grown.map((value) => value / sum);
  }

  function picture(columns, top) {
    const context = canvas.getContext("2d"), pixels = context.createImageData(width, planes);
    columns.forEach((values, x) => values.forEach((value, k) => {
      const color = 3 * Math.round(255 * clamp(value / top, 0, 1)), at = 4 * (k * width + x);
      for (let c = 0; c < 3; c++) pixels.data[at + c] = colors[color + c];
      pixels.data[at + 3] = 255;
    }));
    context.putImageData(pixels, 0, 0);
    return canvas.toDataURL();
  }

  // The same breaks at missing values as path_data() in plot.py.
  function path(values, shift) {
    let text = "", pen = "M";
    values.forEach((value, k) => {
      const there = Number.isFinite(value);
      if (there) text += pen + (k + shift) + "," + Number(value.toPrecision(6)) + (pen === "M" ? "h0" : "");
      pen = there ? "L" : "M";
    });
    return text;
  }

  function drawSlices(y) {
    drawn = y;
    const columns = Array.from({ length: width }, (_, x) => x);
    part(root, "before-image").setAttribute("href", picture(columns.map((x) => volumes.variance(x, y)), data.top));
    part(root, "after-image").setAttribute("href", picture(columns.map((x) => softmax(volumes.cost(x, y))), 1));
    const line = path(Array.from(truth.subarray(y * width, (y + 1) * width)), 0.5);
    for (const each of parts(root, "line-up")) each.setAttribute("d", line);
  }

  function cursors(name, x) {
    for (const line of parts(root, name)) {
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    }
  }

  function draw() {
    const x = Number(column.value), y = Number(row.value), k = Number(plane.value), true_ = truth[y * width + x];
    if (y !== drawn) drawSlices(y);
    const variance = volumes.variance(x, y), cost = volumes.cost(x, y), probability = softmax(cost);
    const most = Math.max(...variance) || 1, least = Math.min(...cost), span = Math.max(...cost) - least || 1;
    part(root, "variance-curve").setAttribute("d", path(variance.map((value) => value / most), 0));
    part(root, "cost-curve").setAttribute("d", path(cost.map((value) => (value - least) / span), 0));
    part(root, "probability-curve").setAttribute("d", path(probability, 0));
    for (const mark of parts(root, "truth-mark")) mark.setAttribute("d", Number.isFinite(true_) ? "M" + true_ + ",-0.05V1.05" : "");
    cursors("cursor", k);
    cursors("column-cursor", x + 0.5);
    const top = 100 * (y + 0.5) / height + "%", spot = part(root, "spot").style;
    part(root, "line").style.top = spot.top = top;
    spot.left = 100 * (x + 0.5) / width + "%";
    const expected = probability.reduce((sum, value, i) => sum + value * data.depths[i], 0);
    part(root, "readout").textContent = "pixel (" + x + ", " + y + "), plane " + k + " at depth " + show(data.depths[k], 3) +
      " \u00b7 variance: " + show(variance[k], 3) + " \u00b7 cost: " + show(cost[k], 2) + " \u00b7 probability: " + show(probability[k], 3);
    part(root, "verdict").textContent = "least variance: plane " + variance.indexOf(Math.min(...variance)) +
      " \u00b7 most probable: plane " + cost.indexOf(least) + " \u00b7 soft argmin: depth " + show(expected, 3) +
      " \u00b7 truth: " + (Number.isFinite(true_) ? "plane " + show(true_, 1) : "not measured, or outside the planes");
  }

  function choose(x, y, k) {
    if (x !== null) column.value = Math.floor(x * width);
    if (y !== null) row.value = Math.floor(y * height);
    if (k !== null) plane.value = k;
    draw();
  }

  follow(part(root, "view"), (x, y, held) => { if (held) choose(x, y, null); });
  for (const name of ["before", "after"]) {
    follow(part(root, name), (x, y, held) => { if (held) choose(x, null, Math.floor((1 - y) * planes)); });
    follow(part(root, "curve-" + name), (x, y, held) => { if (held) choose(null, null, Math.round(x * (planes - 1))); });
  }
  for (const slider of [column, row, plane]) slider.addEventListener("input", draw);
  draw();
}
