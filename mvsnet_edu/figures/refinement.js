// Draws the chosen row into the paths that the page came with, in the units of the data.
function start(root, data) {
  const [width, height] = data.size;
  const row = part(root, "row"), column = part(root, "column");
  const depth = { initial: unpack(data.initial), refined: unpack(data.refined), truth: unpack(data.truth) };
  const curves = {
    initial: (k) => depth.initial[k],
    refined: (k) => depth.refined[k],
    truth: (k) => depth.truth[k],
    residual: (k) => depth.refined[k] - depth.initial[k],
    wanted: (k) => depth.truth[k] - depth.initial[k],
  };

  // The same breaks at missing values as path_data() in plot.py.
  function path(value, first) {
    let text = "", pen = "M";
    for (let x = 0; x < width; x++) {
      const y = value(first + x);
      if (Number.isFinite(y)) text += pen + (x + 0.5) + "," + Number(y.toPrecision(6)) + (pen === "M" ? "h0" : "");
      pen = Number.isFinite(y) ? "L" : "M";
    }
    return text;
  }

  function draw() {
    const y = Number(row.value), x = Number(column.value), first = y * width;
    for (const name in curves) part(root, name).setAttribute("d", path(curves[name], first));
    for (const line of parts(root, "cursor")) {
      line.setAttribute("x1", x + 0.5);
      line.setAttribute("x2", x + 0.5);
    }
    const top = 100 * (y + 0.5) / height + "%";
    part(root, "line").style.top = top;
    part(root, "spot").style.top = top;
    part(root, "spot").style.left = 100 * (x + 0.5) / width + "%";
    part(root, "readout").textContent = "row " + y + ", column " + x + " \u00b7 " +
      Object.keys(curves).map((name) => name + ": " + show(curves[name](first + x), 2)).join(" \u00b7 ");
  }

  for (const frame of root.querySelectorAll(".mvs-frame")) {
    follow(frame, (x) => {
      column.value = Math.floor(x * width);
      draw();
    });
  }
  follow(part(root, "view"), (x, y, held) => {
    if (!held) return;
    column.value = Math.floor(x * width);
    row.value = Math.floor(y * height);
    draw();
  });
  row.addEventListener("input", draw);
  column.addEventListener("input", draw);
  draw();
}
