// Which part of an image is seen on a canvas. CSS pixel = scale * (pixel of the image - [left, top]).

const MAX_SCALE = 24; // CSS pixels per pixel of the image
const CLICK_PX = 6; // a pointer that moves farther drags

class Zoom {
  constructor() {
    Object.assign(this, { scale: 1, left: 0, top: 0, isFit: true, canvas: [1, 1], image: [1, 1] });
    this.pointers = new Map(); // id -> [x, y] in the canvas, of buttons and fingers that are down
    this.hasDragged = false;
  }

  /** Sizes as [width, height]; an image that is seen as a whole stays so. */
  resize(canvas, image) {
    Object.assign(this, { canvas, image });
    if (this.isFit) this.fit();
    else this.by(1, 0, 0);
  }

  fitScale() { return Math.min(this.canvas[0] / this.image[0], this.canvas[1] / this.image[1]); }

  fit() {
    Object.assign(this, { scale: this.fitScale(), isFit: true });
    this.keepInside();
  }

  /** What lies at the CSS pixel (x, y) stays there. */
  by(factor, x, y) {
    const least = this.fitScale(), most = Math.max(MAX_SCALE, least);
    const scale = Math.min(most, Math.max(least, this.scale * factor));
    this.left += x / this.scale - x / scale;
    this.top += y / this.scale - y / scale;
    Object.assign(this, { scale, isFit: scale === least });
    this.keepInside();
  }

  /** By CSS pixels. */
  drag(dx, dy) {
    this.left -= dx / this.scale;
    this.top -= dy / this.scale;
    this.keepInside();
  }

  /** Two fingers: one stays at `other`, one goes from `was` to `now`, in CSS pixels. */
  pinch(was, now, other) {
    const span = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
    const half = ([x, y]) => [(x + other[0]) / 2, (y + other[1]) / 2];
    const [from, to] = [half(was), half(now)];
    this.drag(to[0] - from[0], to[1] - from[1]);
    this.by(span(now) / Math.max(1, span(was)), ...to);
  }

  get isHeld() { return this.pointers.size > 0; }

  /** A button or a finger goes down: from here it drags, and two of them pinch. */
  down({ button, pointerId, offsetX, offsetY, target }) {
    if (button !== 0) return;
    if (!this.isHeld) this.hasDragged = false;
    this.pointers.set(pointerId, [offsetX, offsetY]);
    target.setPointerCapture(pointerId);
  }

  /** Whether that moved the image. */
  move({ pointerId, offsetX, offsetY }) {
    const now = [offsetX, offsetY], was = this.pointers.get(pointerId);
    if (!was) return false;
    if (this.pointers.size === 1) {
      if (!this.hasDragged && Math.hypot(now[0] - was[0], now[1] - was[1]) < CLICK_PX) return false;
      this.drag(now[0] - was[0], now[1] - was[1]);
    } else {
      this.pinch(was, now, [...this.pointers].find(([id]) => id !== pointerId)[1]);
    }
    this.hasDragged = true;
    this.pointers.set(pointerId, now);
    return true;
  }

  /** Whether that was a click. */
  up({ pointerId, type }) {
    return this.pointers.delete(pointerId) && !this.isHeld && !this.hasDragged && type === "pointerup";
  }

  wheel({ deltaMode, deltaY, offsetX, offsetY }) {
    this.by(1.0015 ** -(deltaMode ? 30 * deltaY : deltaY), offsetX, offsetY); // by lines, or by pixels
  }

  /** No empty margin that could be filled; what is smaller than the canvas stands in its middle. */
  keepInside() {
    const clamp = (at, size, seen) => (seen >= size ? (size - seen) / 2 : Math.min(size - seen, Math.max(0, at)));
    this.left = clamp(this.left, this.image[0], this.canvas[0] / this.scale);
    this.top = clamp(this.top, this.image[1], this.canvas[1] / this.scale);
  }

  /** The pixel of the image, whole numbers, at a CSS pixel; null beside the image. */
  pixel(x, y) {
    const at = [Math.floor(x / this.scale + this.left), Math.floor(y / this.scale + this.top)];
    return at.every((coordinate, k) => coordinate >= 0 && coordinate < this.image[k]) ? at : null;
  }
}
