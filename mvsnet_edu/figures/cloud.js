// A WebGL 2 viewer. The camera turns about the target; "up" is that of the first view.
const VERTEX = `#version 300 es
in vec3 point, color, normal;
uniform mat3 axes;              // columns: right, up and forward of the camera
uniform vec3 offset, step;      // the point at step 0, seen from the eye, and the size of a step
uniform vec2 focal, range, size; // size: points' diameter in pixels at depth 1, and whether normals are painted
out vec3 paint;
void main() {
  vec3 p = (offset + step * point) * axes;
  float near = range.x, far = range.y;
  gl_Position = vec4(focal * p.xy, (p.z * (far + near) - 2.0 * far * near) / (far - near), p.z);
  gl_PointSize = clamp(size.x / max(p.z, near), 1.0, 64.0);
  paint = size.y > 0.5 ? 0.5 + 0.5 * normal : color;
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec3 paint;
out vec4 result;
void main() {
  if (length(gl_PointCoord - 0.5) > 0.6) discard;
  result = vec4(paint, 1.0);
}`;

const add = (a, b, s) => a.map((v, k) => v + s * b[k]);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => a.map((v) => v / Math.hypot(...a));
const signed = (value, plus, minus) => Math.abs(value).toFixed(0) + "\u00b0 " + (value < 0 ? minus : plus);

function compile(gl) {
  const program = gl.createProgram();
  [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]].forEach(([type, source]) => {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  });
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  gl.useProgram(program);
  return program;
}

function upload(gl, program, name, array, type, normalised) {
  const place = gl.getAttribLocation(program, name);
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, array, gl.STATIC_DRAW);
  gl.enableVertexAttribArray(place);
  gl.vertexAttribPointer(place, 3, type, normalised, 0, 0);
}

function start(root, data) {
  const canvas = document.createElement("canvas");
  const gl = canvas.getContext("webgl2", { alpha: true, antialias: true });
  if (!gl) {
    part(root, "trouble").hidden = false;
    return false;
  }
  const program = compile(gl), place = (name) => gl.getUniformLocation(program, name);
  upload(gl, program, "point", unpack(data.points), gl.UNSIGNED_SHORT, false);
  upload(gl, program, "color", unpack(data.colors), gl.UNSIGNED_BYTE, true);
  if (data.normals) upload(gl, program, "normal", unpack(data.normals), gl.BYTE, true);
  gl.enable(gl.DEPTH_TEST);

  // The first view in coordinates around "up": a level direction from target to eye, and how far above it the eye is.
  const up = unit(data.up), back = add(data.eye, data.target, -1), reach = Math.hypot(...back);
  const level = unit(add(back, up, -dot(back, up))), side = cross(up, level);
  const rise = Math.asin(clamp(dot(back, up) / reach, -1, 1));
  const extent = Math.hypot(...data.step) * 65535;
  const centre = add(data.low, data.step, 65535 / 2);
  let view, waiting = false;

  function camera() {
    const tilt = clamp(rise + view.tilt, -1.55, 1.55), flat = Math.cos(tilt);
    let ray = level.map((v, k) => flat * (Math.cos(view.turn) * v + Math.sin(view.turn) * side[k]) + Math.sin(tilt) * up[k]);
    const forward = ray.map((v) => -v), right = unit(cross(forward, up));
    return { eye: add(view.target, ray, reach * view.zoom), right: right, up: cross(right, forward), forward: forward };
  }

  function draw() {
    waiting = false;
    const at = camera(), height = canvas.height, width = canvas.width;
    const far = Math.hypot(...add(at.eye, centre, -1)) + extent, near = Math.max(0.01 * reach * view.zoom, 1e-5 * far);
    const paint = part(root, "paint"), scale = Math.pow(2, part(root, "size").value);
    gl.viewport(0, 0, width, height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix3fv(place("axes"), false, at.right.concat(at.up, at.forward));
    gl.uniform3fv(place("offset"), add(data.low, at.eye, -1));
    gl.uniform3fv(place("step"), data.step);
    gl.uniform2f(place("focal"), height / width / data.tangent, 1 / data.tangent);
    gl.uniform2f(place("range"), near, far);
    gl.uniform2f(place("size"), scale * data.size * height / 2 / data.tangent, paint ? paint.value : 0);
    gl.drawArrays(gl.POINTS, 0, data.count);
  }

  function redraw() {
    const degrees = 180 / Math.PI;
    part(root, "readout").textContent = "Seen from " + signed(view.turn * degrees, "right", "left") + " and " +
      signed(view.tilt * degrees, "above", "below") + " the first view, at " + view.zoom.toFixed(2) + " times its distance.";
    if (!waiting) requestAnimationFrame(draw);
    waiting = true;
  }

  function turn(right, above) {
    view.turn = Math.atan2(Math.sin(view.turn + right), Math.cos(view.turn + right));
    view.tilt = clamp(view.tilt + above, -1.55 - rise, 1.55 - rise);
    redraw();
  }

  // Moves the scene with the pointer, by shares of the picture's height.
  function move(right, down) {
    const at = camera(), span = 2 * reach * view.zoom * data.tangent;
    view.target = add(add(view.target, at.right, -right * span), at.up, down * span);
    redraw();
  }

  function zoom(factor) {
    view.zoom = clamp(view.zoom * factor, 0.02, 20);
    redraw();
  }

  function reset() {
    view = { turn: 0, tilt: 0, zoom: 1, target: data.target };
    redraw();
  }

  listen(canvas, { turn: turn, move: move, zoom: zoom, reset: reset });
  part(root, "nearer").addEventListener("click", () => zoom(0.8));
  part(root, "farther").addEventListener("click", () => zoom(1.25));
  part(root, "reset").addEventListener("click", reset);
  for (const name of ["size", "paint"]) if (part(root, name)) part(root, name).addEventListener("input", redraw);
  canvas.addEventListener("webglcontextlost", () => { root.dataset.on = "no"; });
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", root.getAttribute("aria-label") + " Arrow keys turn it.");
  part(root, "stage").append(canvas);
  new ResizeObserver(() => {
    canvas.width = canvas.clientWidth * (window.devicePixelRatio || 1);
    canvas.height = canvas.clientHeight * (window.devicePixelRatio || 1);
    redraw();
  }).observe(canvas);
  reset();
}

// Mouse, touch and keys, as calls of act.turn, act.move, act.zoom and act.reset.
function listen(canvas, act) {
  const held = new Map();
  const spread = () => {
    const [a, b] = Array.from(held.values());
    return Math.hypot(a.x - b.x, a.y - b.y);
  };

  function drag(dx, dy, moves) {
    const share = 1 / canvas.clientHeight;
    if (moves) act.move(dx * share, dy * share);
    else act.turn(-dx * share * 3, dy * share * 3);
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  canvas.addEventListener("pointermove", (event) => {
    const last = held.get(event.pointerId);
    if (!last) return;
    const before = held.size === 2 ? spread() : 0, now = { x: event.clientX, y: event.clientY };
    held.set(event.pointerId, now);
    if (held.size === 2) act.zoom(before / Math.max(spread(), 1));
    drag((now.x - last.x) / held.size, (now.y - last.y) / held.size, held.size === 2 || event.shiftKey || event.buttons === 2);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => held.delete(event.pointerId));
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", act.reset);
  // Until the reader has clicked, the wheel scrolls the page; a pinch on a track pad comes as a wheel with ctrl.
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    act.zoom(Math.exp(clamp(event.deltaY, -100, 100) * (event.ctrlKey ? 0.01 : 0.002)));
  }, { passive: false });

  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const arrow = arrows[event.key];
    if (arrow && event.shiftKey) act.move(0.05 * arrow[0], -0.05 * arrow[1]);
    else if (arrow) act.turn(arrow[0] * Math.PI / 36, arrow[1] * Math.PI / 36);
    else if (event.key === "+" || event.key === "=") act.zoom(0.8);
    else if (event.key === "-") act.zoom(1.25);
    else if (event.key === "r" || event.key === "R") act.reset();
    else return;
    event.preventDefault();
  });
}
