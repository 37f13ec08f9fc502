// What is recorded: a screen or a camera, and a microphone, as one stream; and what a browser says when it gives none.

const TYPES = [
  ["video/webm;codecs=vp9,opus", "webm"],
  ["video/webm;codecs=vp8,opus", "webm"],
  ["video/webm", "webm"],
  ["video/mp4", "mp4"], // Safari
];

const AUDIO_BITS = 128_000; // Opus and AAC are transparent for speech far below, and for music about there
const FRAMES = 30; // a second
const BITS_OF_A_PIXEL = 0.075; // of VP9 in real time: text on a screen stays sharp. 1080p: 4.7 Mbit/s
const PICTURE = { frameRate: FRAMES, width: { max: 1920 }, height: { max: 1080 } }; // more is too much for most encoders
const LEAST_BITS = 1_000_000;
const MOST_BITS = 10_000_000;

/** `{ mimeType, extension }` for MediaRecorder: the best that this browser has. */
export function format() {
  const [mimeType, extension] = TYPES.find(([type]) => MediaRecorder.isTypeSupported(type)) ?? TYPES.at(-1);
  return { mimeType, extension };
}

/** Why nothing can be recorded here; empty if it can. */
export function obstacle() {
  if (!isSecureContext) {
    return "Browsers give a camera, a microphone and a screen to secure pages only: open this one by https, or on the server's own machine.";
  }
  if (!navigator.mediaDevices || !globalThis.MediaRecorder || !navigator.locks) {
    return "This browser cannot record. A current Chrome, Edge, Firefox or Safari can.";
  }
  return "";
}

export function screens() {
  return Boolean(navigator.mediaDevices?.getDisplayMedia); // phones have none
}

/** Cameras and microphones; without names as long as the user has allowed nothing. */
export async function devices() {
  const found = await navigator.mediaDevices.enumerateDevices();
  const of = (kind) => found.filter((device) => device.kind === kind && device.deviceId && device.label);
  return { cameras: of("videoinput"), microphones: of("audioinput") };
}

export class Capture {
  #taken;
  #audio = null;
  #meter = null;

  constructor(taken) {
    this.#taken = taken;
    const tracks = taken.flatMap((stream) => stream.getTracks());
    const picture = tracks.find((track) => track.kind === "video");
    const sounds = tracks.filter((track) => track.kind === "audio");
    /** Called when the picture ends by itself: by the browser's own "Stop sharing", or a camera that is unplugged. */
    this.onended = () => {};
    picture.addEventListener("ended", () => this.onended());
    const heard = sounds.length ? [this.#mixed(sounds)] : [];
    /** What MediaRecorder takes. */
    this.stream = new MediaStream([picture, ...heard]);
    const { width = 1280, height = 720 } = picture.getSettings();
    this.bits = {
      audioBitsPerSecond: AUDIO_BITS,
      videoBitsPerSecond: Math.min(MOST_BITS, Math.max(LEAST_BITS, width * height * FRAMES * BITS_OF_A_PIXEL)),
    };
  }

  /** Ask for what is wanted: `source` is "screen" or "camera"; `camera` and `microphone` are ids of devices, "" for the
   * usual one, and `microphone` is "none" without. Throws what `refusal` explains. */
  static async of({ source, camera, microphone }) {
    const sound = microphone !== "none" && { ...one(microphone), echoCancellation: true, noiseSuppression: true };
    if (source === "camera") {
      const picture = { ...one(camera), width: { ideal: 1280 }, height: { ideal: 720 } };
      return new Capture([await navigator.mediaDevices.getUserMedia({ video: picture, audio: sound })]);
    }
    // First, since it may only be asked for just after a click.
    const screen = await navigator.mediaDevices.getDisplayMedia({ video: PICTURE, audio: true, systemAudio: "include" });
    if (!sound) return new Capture([screen]);
    try {
      return new Capture([screen, await navigator.mediaDevices.getUserMedia({ audio: sound })]);
    } catch (error) {
      stopped(screen);
      throw error;
    }
  }

  /** How loud it is now, as ears have it: 0 is 60 dB below the loudest, 1. Null without sound. */
  level() {
    if (!this.#meter) return null;
    const wave = new Float32Array(this.#meter.fftSize);
    this.#meter.getFloatTimeDomainData(wave);
    const peak = wave.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    return Math.min(1, Math.max(0, 1 + Math.log10(peak) / 3));
  }

  release() {
    this.#taken.forEach(stopped);
    this.#audio?.close();
  }

  /** One track of all: MediaRecorder takes no second one. */
  #mixed(sounds) {
    this.#audio = new AudioContext();
    this.#meter = this.#audio.createAnalyser();
    const mix = this.#audio.createMediaStreamDestination();
    for (const track of sounds) {
      const source = this.#audio.createMediaStreamSource(new MediaStream([track]));
      source.connect(this.#meter);
      source.connect(mix);
    }
    return sounds.length === 1 ? sounds[0] : mix.stream.getAudioTracks()[0];
  }
}

/** Why a browser gave nothing, and what to do. */
export function refusal(error, source) {
  switch (error.name) {
    case "NotAllowedError":
      return source === "screen"
        ? "Nothing is shared. Choose a screen, a window or a tab in the browser's question, and allow the microphone."
        : "The browser may not use the camera or the microphone. Allow both beside the address, and try again.";
    case "NotFoundError":
      return "There is no such device here. Connect one, or record without a microphone.";
    case "OverconstrainedError":
      return "This device is not there any more. Choose another one.";
    case "NotReadableError":
    case "AbortError":
      return "The device does not answer. If another program uses it, close that one, and try again.";
    default:
      throw error; // a defect of ours: the console shows it
  }
}

function one(id) {
  return id ? { deviceId: { exact: id } } : {};
}

function stopped(stream) {
  for (const track of stream.getTracks()) track.stop();
}
