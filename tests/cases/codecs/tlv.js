// ES2015: classes, generators, destructuring, Map; values as type, length, value.
class Reader {
  constructor(bytes) { this.view = new DataView(Uint8Array.from(bytes).buffer); }
  *entries() {
    for (let at = 0; at < this.view.byteLength;) {
      const type = this.view.getUint8(at), length = this.view.getUint8(at + 1);
      if (at + 2 + length > this.view.byteLength) throw new RangeError(`type ${type} is cut off`);
      yield [type, new DataView(this.view.buffer, at + 2, length)];
      at += 2 + length;
    }
  }
}
const KINDS = new Map([
  [0x01, ['temperature', (v) => v.getInt16(0) / 100]],
  [0x02, ['battery', (v) => v.getUint16(0) / 1000]],
  [0x03, ['serial', (v) => v.getBigUint64(0).toString(16).padStart(16, '0')]],
  [0x04, ['name', (v) => String.fromCharCode(...new Uint8Array(v.buffer, v.byteOffset, v.byteLength))]],
]);
function decodeUplink({bytes}) {
  const data = {}, warnings = [];
  for (const [type, view] of new Reader(bytes).entries()) {
    const [name, read] = KINDS.get(type) ?? [];
    if (name) data[name] = read(view); else warnings.push(`unknown type ${type}`);
  }
  return {data, warnings};
}
