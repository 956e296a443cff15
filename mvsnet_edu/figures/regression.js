// The same arithmetic as depth.py, in double precision; a browser test compares the two.
function start(root, data) {
  const { depths, interval, unit } = data, tops = [0.05, 0.1, 0.2, 0.5, 1];
  const controls = ["position", "height", "width"].map((name) => parts(root, name));
  const background = part(root, "background"), temperature = part(root, "temperature");
  const score = part(root, "score"), dots = parts(root, "dot");
  const labels = Array.from(part(root, "bars").previousElementSibling.children);
  const marks = labels.map((label) => Number(label.textContent));
  const drawn = part(root, "winner-line").y2.baseVal.value / 1.08; // the axis that the page came with
  let bumps = data.bumps.map((bump) => bump.slice());

  function scores() {
    return depths.map((d) => bumps.reduce(
      (sum, [position, height, width]) => sum + height * Math.exp(-(((d - position) / (width * interval)) ** 2) / 2),
      Number(background.value)));
  }

  function softmax(weights) { // of the costs -log(weight), divided by the temperature
    const largest = Math.max(...weights);
    const powers = weights.map((w) => Math.pow(w / largest, 1 / temperature.value));
    const total = powers.reduce((sum, p) => sum + p, 0);
    return powers.map((p) => p / total);
  }

  function columns(chosen, probability, scale) {
    const text = (value) => Number(value.toPrecision(6));
    return chosen.map((j) => "M" + text(depths[j] - 0.4 * interval) + ",0V" + text(probability[j] * scale) +
      "H" + text(depths[j] + 0.4 * interval) + "V0Z").join("");
  }

  function upright(name, x) {
    const line = part(root, name + "-line");
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    part(root, name).textContent = show(x, 3);
  }

  function bars(probability, near) {
    const top = tops.find((t) => Math.max(...probability) <= t) || 1, all = depths.map((_, j) => j);
    labels.forEach((label, k) => { label.textContent = Number((marks[k] * top / drawn).toPrecision(4)); });
    part(root, "four").setAttribute("d", columns(all.filter(near), probability, drawn / top));
    part(root, "others").setAttribute("d", columns(all.filter((j) => !near(j)), probability, drawn / top));
  }

  function sentence(expectation, below, trust) {
    const where = below + 1 < depths.length ? "between planes " + below + " and " + (below + 1) : "on the last plane";
    const verdict = trust < 0.1 ? "next to nothing: hardly any evidence is there."
      : trust < 0.8 ? "less than the 0.8 that the paper's filter asks for." : "enough for the paper's filter, which asks for 0.8.";
    return "The expected depth is " + show(expectation, 3) + (unit && " " + unit) + ", " + where + ". The four planes " +
      "around it hold " + show(trust, 3) + " of the probability, " + verdict;
  }

  function draw() {
    const weights = scores(), probability = softmax(weights);
    const expectation = depths.reduce((sum, d, j) => sum + probability[j] * d, 0);
    const below = depths.filter((d) => d <= expectation).length - 1, near = (j) => j >= below - 1 && j <= below + 2;
    const trust = Math.min(1, probability.reduce((sum, p, j) => sum + (near(j) ? p : 0), 0));
    part(root, "score-curve").setAttribute("d", "M" + depths.map((d, j) => d + "," + weights[j]).join("L"));
    dots.forEach((dot, k) => dot.setAttribute("d", "M" + bumps[k][0] + "," + bumps[k][1] + "h0"));
    bars(probability, near);
    upright("winner", depths[probability.indexOf(Math.max(...probability))]);
    upright("expectation", expectation);
    part(root, "trust").textContent = show(trust, 3);
    part(root, "readout").textContent = sentence(expectation, below, trust);
  }

  let grabbed = -1;
  score.addEventListener("pointerdown", () => { grabbed = -1; });
  follow(score, (x, y, held) => {
    if (!held) return;
    const box = score.viewBox.baseVal, depth = clamp(box.x + x * box.width, depths[0], depths[depths.length - 1]);
    const away = bumps.map((bump) => Math.abs(bump[0] - depth));
    if (grabbed < 0) grabbed = away.indexOf(Math.min(...away));
    const height = clamp(box.height * (1 - y), 0.01, 1);
    [depth, height].forEach((value, k) => {
      bumps[grabbed][k] = value;
      controls[k][grabbed].value = value;
    });
    draw();
  });
  controls.forEach((sliders, k) => sliders.forEach((slider, n) => slider.addEventListener("input", () => {
    bumps[n][k] = Number(slider.value);
    draw();
  })));
  for (const slider of [background, temperature]) slider.addEventListener("input", draw);
  draw();
}
