// Recordings of a screen or a camera, sent while they are made. They live in #recorder.

export function start() {}
