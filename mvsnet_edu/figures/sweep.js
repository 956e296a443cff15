// The browser warps: a source is an image under the inverse homography, scaled to the size at which it is shown.
function start(root, data) {
  const [width, height] = data.size, [columns, rows] = data.grid, planes = data.depths.length;
  const stage = part(root, "stage"), slider = part(root, "depth"), blend = part(root, "blend");
  const chosen = part(root, "chosen"), mode = part(root, "mode"), sources = parts(root, "source");
  const costs = unpack(data.cost), truth = data.truth && unpack(data.truth);
  let [column, row] = data.pixel, flickers = 0;

  const short = (value) => Number(value.toPrecision(6));
  const cost = (plane) => data.scale * costs[(plane * rows + row) * columns + column];
  const place = () => [(column + 0.5) * width / columns, (row + 0.5) * height / rows];
  const sideways = (x, depth) => (x - data.focus[1]) / data.focus[0] * depth;

  function known(x) {
    const depth = truth ? truth[row * columns + x] : 0;
    return depth > 0 && Number.isFinite(depth) ? depth : 0;
  }

  function inverse([a, b, c, d, e, f, g, h, i]) {
    const m = [e * i - f * h, c * h - b * i, b * f - c * e, f * g - d * i, a * i - c * g, c * d - a * f,
      d * h - e * g, b * g - a * h, a * e - b * d];
    const determinant = a * m[0] + b * m[3] + c * m[6];
    return m.map((value) => value / determinant);
  }

  function warp(image, homography) {
    const s = stage.clientWidth / width, m = inverse(homography);
    image.style.transform = "matrix3d(" + [m[0], m[3], 0, m[6] / s, m[1], m[4], 0, m[7] / s, 0, 0, 1, 0,
      m[2] * s, m[5] * s, 0, m[8]].join() + ")";
  }

  function drawSources(plane) {
    sources.forEach((image, k) => {
      image.style.display = k === Number(chosen.value) ? "" : "none";
      image.style.mixBlendMode = mode.value === "difference" ? "difference" : "normal";
      image.style.opacity = mode.value === "blend" ? blend.value / 100 : 1;
      warp(image, data.homographies[k][plane]);
    });
    blend.disabled = mode.value !== "blend";
  }

  function drawCost(plane) {
    const curve = data.depths.map((depth, k) => cost(k)), top = Math.max(...curve) || 1;
    const path = curve.map((value, k) => short(data.depths[k]) + "," + short(value / top)).join("L");
    part(root, "curve").setAttribute("d", "M" + path);
    part(root, "true").setAttribute("d", known(column) ? "M" + short(known(column)) + ",0V1.08" : "");
    part(root, "cost-dot").setAttribute("d", "M" + data.depths[plane] + "," + curve[plane] / top + "h0");
    for (const end of ["x1", "x2"]) part(root, "cursor").setAttribute(end, data.depths[plane]);
    part(root, "cost-value").textContent = show(curve[plane], 5);
    return data.depths[curve.indexOf(Math.min(...curve))];
  }

  function drawAbove(plane) {
    const depth = data.depths[plane], far = data.depths[planes - 1], box = part(root, "above").viewBox.baseVal;
    let surface = "", pen = "M";
    for (let x = 0; x < columns; x++) {
      const z = known(x);
      if (z) surface += pen + short(sideways((x + 0.5) * width / columns, z)) + "," + short(z) + (pen === "M" ? "h0" : "");
      pen = z ? "L" : "M";
    }
    if (truth) part(root, "surface").setAttribute("d", surface);
    sources.forEach((image, k) => {
      part(root, "frame-" + (k + 1)).style.display = k === Number(chosen.value) ? "" : "none";
    });
    part(root, "ray").setAttribute("d", "M0,0L" + sideways(place()[0], far) + "," + far);
    part(root, "plane").setAttribute("d", "M" + box.x + "," + depth + "h" + box.width);
    part(root, "above-dot").setAttribute("d", "M" + sideways(place()[0], depth) + "," + depth + "h0");
    part(root, "above-value").textContent = "z = " + show(depth, 3);
  }

  function target(plane) {
    const [x, y] = place(), m = data.homographies[chosen.value][plane];
    const [u, v, z] = [0, 3, 6].map((k) => m[k] * x + m[k + 1] * y + m[k + 2]);
    if (z <= 1e-6) return "behind the camera";
    const isInside = u >= 0 && v >= 0 && u <= width * z && v <= height * z;
    return "(" + show(u / z, 2) + ", " + show(v / z, 2) + ")" + (isInside ? "" : ", outside");
  }

  function draw() {
    const plane = Number(slider.value), source = Number(chosen.value) + 1;
    drawSources(plane);
    drawAbove(plane);
    const best = drawCost(plane);
    part(root, "pixel").setAttribute("d", "M" + place() + "h0");
    part(root, "readout").textContent = "plane " + (plane + 1) + " of " + planes + ", depth " + show(data.depths[plane], 3) +
      " \u00b7 pixel (" + place().map((v) => show(v, 2)).join(", ") + ") \u2192 source " + source + " at " + target(plane) +
      " \u00b7 cost " + show(cost(plane), 5) + " \u00b7 lowest at " + show(best, 3) +
      (truth ? " \u00b7 true depth " + show(known(column) || NaN, 3) : "");
    slider.setAttribute("aria-valuetext", "depth " + show(data.depths[plane], 3));
  }

  function choose(x, y) {
    column = clamp(x, 0, columns - 1);
    row = clamp(y, 0, rows - 1);
    draw();
  }

  function moveTo(depth) {
    let nearest = 0;
    data.depths.forEach((d, k) => { if (Math.abs(d - depth) < Math.abs(data.depths[nearest] - depth)) nearest = k; });
    slider.value = nearest;
    draw();
  }

  // Slower than three times a second, which is safe for everybody; it ends with the figure.
  function flicker() {
    clearInterval(flickers);
    if (mode.value !== "flicker") return;
    flickers = setInterval(() => {
      if (!root.isConnected) return clearInterval(flickers);
      const image = sources[chosen.value];
      image.style.opacity = 1 - image.style.opacity;
    }, 450);
  }

  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  stage.tabIndex = 0;
  stage.setAttribute("role", "application");
  stage.setAttribute("aria-label", "The reference: click a pixel, or move it by the arrow keys, with shift by ten");
  stage.addEventListener("keydown", (event) => {
    const move = moves[event.key], far = event.shiftKey ? 10 : 1;
    if (!move) return;
    event.preventDefault();
    choose(column + far * move[0], row + far * move[1]);
  });
  follow(stage, (x, y, held) => { if (held) choose(Math.floor(x * columns), Math.floor(y * rows)); });
  follow(part(root, "cost"), (x, y, held) => {
    if (held) moveTo(data.depths[0] + x * (data.depths[planes - 1] - data.depths[0]));
  });
  follow(part(root, "above"), (x, y, held) => {
    const box = part(root, "above").viewBox.baseVal;
    if (held) moveTo(-box.y - y * box.height);
  });
  for (const control of [slider, chosen, blend]) control.addEventListener("input", draw);
  mode.addEventListener("input", () => { draw(); flicker(); });
  new ResizeObserver(draw).observe(stage);
  draw();
}
