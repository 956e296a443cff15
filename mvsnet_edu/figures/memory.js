// The same arithmetic as peak_bytes in memory.py.
function start(root, data) {
  const size = part(root, "size"), planes = part(root, "planes"), views = part(root, "views");

  function bytes(floats, perSource, width, height) {
    const pixels = Math.floor(width / data.stride) * Math.floor(height / data.stride);
    const perVoxel = floats + perSource * (views.value - 1);
    return 4 * pixels * (planes.value * perVoxel + views.value * data.channels);
  }

  function amount(number) {
    return number >= 1e9 ? (number / 1e9).toFixed(1) + " GB" : (number / 1e6).toFixed(0) + " MB";
  }

  function place(number) {
    const share = Math.log10(number / data.low) / Math.log10(data.high / data.low);
    return 100 * clamp(share, 0, 1);
  }

  function draw() {
    const [width, height] = data.sizes[size.value];
    data.formulations.forEach(([, floats, perSource], k) => {
      const number = bytes(floats, perSource, width, height);
      part(root, "value-" + k).textContent = amount(number);
      part(root, "bar-" + k).style.width = place(number) + "%";
    });
    const voxels = planes.value * (width / data.stride) * (height / data.stride);
    part(root, "readout").textContent = width + " × " + height + " pixels, " + planes.value + " planes, " + views.value +
      " views: the volume has " + (voxels / 1e6).toFixed(2) + " million voxels.";
    size.setAttribute("aria-valuetext", width + " by " + height + " pixels");
  }

  for (const slider of [size, planes, views]) slider.addEventListener("input", draw);
  draw();
}
