// The time of reception, and times in the payload: seconds since 2000, ages in minutes.
function decodeUplink(input) {
  const b = input.bytes, base = Date.UTC(2000, 0, 1);
  const seconds = ((b[0] << 24) | (b[1] << 16) | (b[2] << 8) | b[3]) >>> 0;
  const measured = new Date(base + seconds * 1000);
  return {data: {
    measured, delay: (input.recvTime.getTime() - measured.getTime()) / 1000,
    samples: b.slice(4).map((value, i) => ({value, at: new Date(measured.getTime() - i * 60000).toISOString()})),
  }};
}
