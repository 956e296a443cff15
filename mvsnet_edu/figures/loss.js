// The numbers were computed by torch: this looks them up and draws the cursor.
function start(root, data) {
  const slider = part(root, "shift"), measured = part(root, "measured");
  const names = ["loss", "less_one", "less_three"];
  const reach = data.shifts[data.shifts.length - 1];

  function place(name, shift, value, curve) {
    part(root, name + "-curve").setAttribute("d", "M" + data.shifts.map((x, k) => x + "," + curve[k]).join("L"));
    part(root, name + "-dot").setAttribute("d", "M" + shift + "," + value + "h0");
    part(root, name + "-value").textContent = show(value, 3);
  }

  function sentence(shift, gradient) {
    const side = shift === 0 ? "exactly where it was" : shift > 0 ? "farther away" : "nearer";
    const way = gradient === 0 ? "no gradient, so a step of training leaves the estimate where it is."
      : "a gradient that sends the estimate " + (gradient > 0 ? "nearer." : "farther away.");
    return "Shifted by " + show(shift, 2) + " intervals (" + show(shift * data.interval, 2) + " " + data.unit + ", " +
      side + "). The loss gives " + way + " less_one and less_three give none anywhere.";
  }

  function draw() {
    const table = measured.checked ? data.measured : data.unmeasured;
    let k = 0;
    data.shifts.forEach((x, i) => { if (Math.abs(x - slider.value) < Math.abs(data.shifts[k] - slider.value)) k = i; });
    for (const name of names) {
      place(name, data.shifts[k], table[name].value[k], table[name].value);
      place(name + "-gradient", data.shifts[k], table[name].gradient[k], table[name].gradient);
    }
    for (const line of parts(root, "cursor")) {
      line.setAttribute("x1", data.shifts[k]);
      line.setAttribute("x2", data.shifts[k]);
    }
    part(root, "readout").textContent = sentence(data.shifts[k], table.loss.gradient[k]);
    slider.setAttribute("aria-valuetext", show(data.shifts[k], 2) + " intervals");
  }

  for (const frame of root.querySelectorAll(".mvs-frame")) {
    follow(frame, (x, y, held) => {
      if (!held) return;
      slider.value = (2 * x - 1) * reach;
      draw();
    });
  }
  slider.addEventListener("input", draw);
  measured.addEventListener("change", draw);
  draw();
}
