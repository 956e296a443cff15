// Two tiles lie on each other; the upper one, which is the right one, is cut off left of the wipe.
function start(root, data) {
  const over = part(root, "over"), readout = part(root, "readout"), wipe = part(root, "wipe");
  const tiles = parts(root, "tile"), selects = [part(root, "left"), part(root, "right")];
  const values = data.pictures.map((picture) => picture.values && unpack(picture.values));
  const step = { x: 1 / data.size[0], y: 1 / data.size[1] };
  let probe = { x: 0.5 + step.x / 2, y: 0.5 + step.y / 2 };

  function pixel(picture) {
    const [width, height] = picture.size;
    return [clamp(Math.floor(probe.x * width), 0, width - 1), clamp(Math.floor(probe.y * height), 0, height - 1)];
  }

  function value(select) {
    const picture = data.pictures[select.value];
    if (!picture.values) return "";
    const [x, y] = pixel(picture), number = values[select.value][y * picture.size[0] + x];
    const unit = Number.isFinite(number) && picture.unit ? " " + picture.unit : "";
    return " \u00b7 " + picture.label + ": " + show(number, data.digits) + unit;
  }

  function draw() {
    const [left, right] = selects.map((select) => Number(select.value));
    tiles.forEach((tile, k) => {
      tile.classList.toggle("mvs-left", k === left);
      tile.classList.toggle("mvs-right", k === right && k !== left);
    });
    root.style.setProperty("--cut", wipe.value + "%");
    root.style.setProperty("--x", 100 * probe.x + "%");
    root.style.setProperty("--y", 100 * probe.y + "%");
    const shown = left === right ? selects.slice(0, 1) : selects;
    const [x, y] = pixel(data);
    readout.textContent = "pixel (" + x + ", " + y + ")" + shown.map(value).join("");
  }

  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  over.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const far = event.shiftKey ? 10 : 1;
    probe.x = clamp(probe.x + far * move[0] * step.x, step.x / 2, 1 - step.x / 2);
    probe.y = clamp(probe.y + far * move[1] * step.y, step.y / 2, 1 - step.y / 2);
    draw();
  });
  follow(over, (x, y, held) => {
    probe = { x: x, y: y };
    if (held) wipe.value = 100 * x;
    draw();
  });
  for (const control of [wipe].concat(selects)) control.addEventListener("input", draw);
  draw();
}
