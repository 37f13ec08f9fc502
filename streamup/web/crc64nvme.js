// CRC64NVME (NVM Express, NVM Command Set 1.0, 5.2.1.3.4): what S3 and streamup say an object's bytes are by.
//
// In 32-bit halves, since BigInt would make each byte an object, and eight bytes at a time: eight tables tell what a
// byte does to a CRC that is so many bytes further on.

const POLYNOMIAL = 0x9a6c9329ac4bc9b5n; // reflected: bit 63 is the coefficient of x^0
const ONES = 0xffffffffffffffffn;
const BYTES = 8;

/** Low and high half of table `t` for byte `b` are at `512 * t + 2 * b`, and behind it. */
const TABLES = new Int32Array(BYTES * 512);
for (let byte = 0; byte < 256; byte++) {
  let crc = BigInt(byte);
  for (let bit = 0; bit < 8; bit++) crc = (crc >> 1n) ^ (crc & 1n ? POLYNOMIAL : 0n);
  TABLES[2 * byte] = Number(BigInt.asIntN(32, crc));
  TABLES[2 * byte + 1] = Number(BigInt.asIntN(32, crc >> 32n));
}
for (let at = 512; at < TABLES.length; at += 2) {
  const low = TABLES[at - 512];
  const high = TABLES[at - 511];
  const next = 2 * (low & 255);
  TABLES[at] = ((low >>> 8) | (high << 24)) ^ TABLES[next];
  TABLES[at + 1] = (high >>> 8) ^ TABLES[next + 1];
}

/** The CRC of what has been added so far. */
export class Crc64Nvme {
  #low;
  #high;

  /** `value` of the bytes before, if there are any. */
  constructor(value = 0n) {
    this.#low = Number(BigInt.asIntN(32, ~value));
    this.#high = Number(BigInt.asIntN(32, ~value >> 32n));
  }

  /** `bytes` is a Uint8Array. */
  add(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const whole = bytes.length - (bytes.length % BYTES);
    const t = TABLES;
    let low = this.#low;
    let high = this.#high;
    let at = 0;
    for (; at < whole; at += BYTES) {
      const x = low ^ view.getInt32(at, true);
      const y = high ^ view.getInt32(at + 4, true);
      const a = 3584 + ((x & 255) << 1); // table 7: seven bytes follow this one
      const b = 3072 + ((x >>> 7) & 510);
      const c = 2560 + ((x >>> 15) & 510);
      const d = 2048 + ((x >>> 23) & 510);
      const e = 1536 + ((y & 255) << 1);
      const f = 1024 + ((y >>> 7) & 510);
      const g = 512 + ((y >>> 15) & 510);
      const h = (y >>> 23) & 510;
      low = t[a] ^ t[b] ^ t[c] ^ t[d] ^ t[e] ^ t[f] ^ t[g] ^ t[h];
      high = t[a + 1] ^ t[b + 1] ^ t[c + 1] ^ t[d + 1] ^ t[e + 1] ^ t[f + 1] ^ t[g + 1] ^ t[h + 1];
    }
    for (; at < bytes.length; at++) {
      const entry = 2 * ((low ^ bytes[at]) & 255);
      low = ((low >>> 8) | (high << 24)) ^ t[entry];
      high = (high >>> 8) ^ t[entry + 1];
    }
    this.#low = low;
    this.#high = high;
  }

  /** As a BigInt of 64 bits. */
  get value() {
    return ((BigInt(this.#high >>> 0) << 32n) | BigInt(this.#low >>> 0)) ^ ONES;
  }
}

/** The CRC of two pieces in a row, by the CRC of each and the length of the second one in bytes (Number or BigInt). */
export function combine(first, second, length) {
  let shift = 1n << 63n; // x^0
  let power = 1n << 55n; // x^8: one byte further on
  for (let rest = BigInt(length); rest; rest >>= 1n) {
    if (rest & 1n) shift = product(shift, power);
    power = product(power, power);
  }
  return product(shift, first) ^ second;
}

/** Of two reflected polynomials, modulo `POLYNOMIAL`. */
function product(a, b) {
  let sum = 0n;
  for (let bit = 63n; bit >= 0n; bit--) {
    if ((a >> bit) & 1n) sum ^= b;
    b = (b >> 1n) ^ (b & 1n ? POLYNOMIAL : 0n);
  }
  return sum;
}

/** As S3's fields and our documents have it: base64 of eight bytes, the highest first. */
export function base64(value) {
  const bytes = Array.from({ length: BYTES }, (_, place) => Number((value >> BigInt(56 - 8 * place)) & 255n));
  return btoa(String.fromCharCode(...bytes));
}
