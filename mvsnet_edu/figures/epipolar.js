// Everything happens on the stage, which is the world brought into the unit sphere: a view's "ray" leads from its
// homogeneous pixels to directions of depth 1, its "project" from points to homogeneous pixels whose third is depth.
function start(root, data) {
  const [width, height] = data.size, [columns, rows] = data.grid;
  const shots = parts(root, "view"), slider = part(root, "depth"), turn = part(root, "turn");
  const cloud = unpack(data.cloud), truth = data.truth && unpack(data.truth);
  const spots = data.views.map(() => data.pixel.slice());
  let chosen = data.view;

  function at(view, [x, y], depth) {
    return [0, 1, 2].map((i) => view.centre[i] + depth * (view.ray[3 * i] * x + view.ray[3 * i + 1] * y + view.ray[3 * i + 2]));
  }

  function see(view, [x, y, z]) {
    const p = view.project, row = (i) => p[i] * x + p[i + 1] * y + p[i + 2] * z + p[i + 3];
    return [row(0) / row(8), row(4) / row(8), row(8)];
  }

  function flat([x, y, z]) {
    const a = turn.value * Math.PI / 180, e = data.elevation * Math.PI / 180;
    return [x * Math.cos(a) + z * Math.sin(a), (z * Math.cos(a) - x * Math.sin(a)) * Math.sin(e) - y * Math.cos(e)];
  }

  const text = (point) => point.slice(0, 2).map((v) => Number(v.toPrecision(6))).join(",");
  const polyline = (points) => "M" + points.map(text).join("L");
  const dots = (points) => points.map((point) => "M" + text(point) + "h0").join("");
  const centre = () => [(spots[chosen][0] + 0.5) * width / columns, (spots[chosen][1] + 0.5) * height / rows];

  function known() {
    const [x, y] = spots[chosen], depth = truth ? truth[(chosen * rows + y) * columns + x] : 0;
    return depth > 0 && Number.isFinite(depth) ? depth : 0;
  }

  function pyramid(view) {
    const [a, b, c, d] = [[0, 0], [width, 0], [width, height], [0, height]].map((p) => at(view, p, data.pyramid));
    return polyline([a, b, c, d, a, view.centre, b, c, view.centre, d].map(flat));
  }

  function drawStage(depth) {
    const view = data.views[chosen], points = data.depths.map((d) => flat(at(view, centre(), d))), box = part(root, "stage");
    const point = flat(at(view, centre(), depth)), frame = box.querySelector("svg").viewBox.baseVal;
    let first = 0;
    parts(root, "cloud").forEach((path, color) => {
      const group = [];
      for (const end = first + 3 * data.colors[color]; first < end; first += 3) group.push(flat(cloud.subarray(first, first + 3)));
      path.setAttribute("d", dots(group));
    });
    part(root, "ray").setAttribute("d", polyline([flat(view.centre), points[points.length - 1]]));
    part(root, "ray-ticks").setAttribute("d", dots(points));
    part(root, "point").setAttribute("d", dots([point]));
    part(root, "sight").setAttribute("d", data.views.map((v) => polyline([flat(v.centre), point])).join(""));
    parts(root, "camera").forEach((camera, k) => {
      camera.setAttribute("d", pyramid(data.views[k]));
      camera.classList.toggle("mvs-chosen", k === chosen);
    });
    parts(root, "name").forEach((name, k) => {
      const [x, y] = flat(data.views[k].centre);
      name.style.left = 50 + 100 * x / frame.width + "%";
      name.style.top = 50 + 100 * y / frame.height + "%";
    });
  }

  // The paths of one photograph: the line, the part of it between the first and the last depth, the truth.
  function lines(k) {
    if (k === chosen) return { line: "", range: "", truth: "", pixel: dots([centre()]) };
    const along = (depth) => see(data.views[k], at(data.views[chosen], centre(), depth));
    const points = data.depths.map(along).filter((p) => p[2] > data.near);
    const first = points[0] || [0, 0], end = points[points.length - 1] || first;
    const [dx, dy] = [end[0] - first[0], end[1] - first[1]], length = Math.hypot(dx, dy);
    if (length < 1e-6 * width) return { line: "", range: "", truth: "", pixel: "" };
    const far = 9 * width / length, tick = 0.012 * width / length, true_ = known() ? along(known()) : [0, 0, 0];
    const ticks = points.map(([x, y]) => polyline([[x + tick * dy, y - tick * dx], [x - tick * dy, y + tick * dx]]));
    return {
      line: polyline([[first[0] - far * dx, first[1] - far * dy], [end[0] + far * dx, end[1] + far * dy]]),
      range: polyline([first, end]) + ticks.join(""),
      truth: true_[2] > data.near ? dots([true_]) : "",
      pixel: "",
    };
  }

  function drawPhoto(shot, k, point) {
    const [x, y, z] = see(data.views[k], point), paths = lines(k), isSeen = k !== chosen && z > data.near;
    for (const name in paths) part(shot, name).setAttribute("d", paths[name]);
    part(shot, "spot").setAttribute("d", isSeen ? dots([[x, y]]) : "");
    const isInside = x >= 0 && y >= 0 && x <= width && y <= height;
    const where = z <= data.near ? "behind the camera" : "(" + show(x, 2) + ", " + show(y, 2) + "), z = " + show(z, 3);
    parts(root, "value")[k].textContent = (k === chosen ? "chosen: " : "") + where + (z > data.near && !isInside ? ", outside" : "");
    shot.classList.toggle("mvs-chosen", k === chosen);
  }

  function draw() {
    const depth = data.depths[slider.value], point = at(data.views[chosen], centre(), depth);
    drawStage(depth);
    shots.forEach((shot, k) => drawPhoto(shot, k, point));
    part(root, "readout").textContent = "pixel (" + centre().map((v) => show(v, 2)).join(", ") + ") of view " + chosen +
      " \u00b7 depth " + show(depth, 3) + (truth ? " \u00b7 true depth " + show(known() || NaN, 3) : "");
    slider.setAttribute("aria-valuetext", show(depth, 3));
  }

  function choose(k, column, row) {
    chosen = k;
    spots[k] = [clamp(column, 0, columns - 1), clamp(row, 0, rows - 1)];
    draw();
  }

  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  shots.forEach((shot, k) => {
    shot.tabIndex = 0;
    shot.setAttribute("role", "application");
    shot.setAttribute("aria-label", "View " + k + ": click a pixel, or move it by the arrow keys, with shift by ten");
    follow(shot, (x, y, held) => { if (held) choose(k, Math.floor(x * columns), Math.floor(y * rows)); });
    shot.addEventListener("keydown", (event) => {
      const move = moves[event.key], far = event.shiftKey ? 10 : 1;
      if (!move) return;
      event.preventDefault();
      choose(k, spots[k][0] + far * move[0], spots[k][1] + far * move[1]);
    });
  });
  let before = null;
  follow(part(root, "stage"), (x, y, held) => {
    if (held && before !== null) turn.value = (Number(turn.value) + 180 * (x - before) + 540) % 360 - 180;
    before = held ? x : null;
    if (held) draw();
  });
  for (const control of [slider, turn]) control.addEventListener("input", draw);
  draw();
}
