// Talking to the server: JSON, pictures, and its errors, each one line that says what to do.

/** An error whose message a person should read; status: the answer's, if there was one. */
export class Refused extends Error {
  constructor(message, status = null) {
    super(message);
    this.status = status;
  }
}

const KEPT = 24; // pictures kept decoded, some MB each
const kept = new Map(); // address -> promise; the one that was asked for last stands last

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The explorer does not answer. Is “carbseg explore” still running? Start it again, and open "
      + "the address that it prints.");
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw new Refused(error ?? `The explorer answered with ${response.status}; its terminal says why.`, response.status);
}

export async function get(path, signal) { return (await request(path, { signal })).json(); }

export async function post(path, data) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(data) };
  return (await request(path, options)).json();
}

/** A photo, ready to be drawn. */
export function photo(path, signal) {
  return once(path, async () => createImageBitmap(await (await request(path, { signal })).blob()));
}

/** {values, width, height} of a gray picture, in scan order. */
export function gray(path, signal) { return once(path, () => decodeGray(path, signal)); }

async function decodeGray(path, signal) {
  const blob = await (await request(path, { signal })).blob();
  const picture = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const { width, height } = picture;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  picture.close();
  const { data } = context.getImageData(0, 0, width, height), values = new Uint8Array(width * height);
  for (let k = 0; k < values.length; k += 1) values[k] = data[4 * k];
  return { values, width, height };
}

function once(path, make) {
  const promise = kept.get(path) ?? make();
  kept.delete(path);
  kept.set(path, promise);
  promise.catch(() => { if (kept.get(path) === promise) kept.delete(path); }); // so that it is asked for again
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return promise;
}
