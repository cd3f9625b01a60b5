// A module in a function, with console output and exports for other engines, as transpilers write it.
var codec = (function (root) {
  "use strict";
  var last = null; // what is kept here does not outlive a run
  function step(state, byte) { return Object.assign({}, state, {sum: state.sum + byte, n: state.n + 1}); }
  return {
    decode: function (bytes) {
      console.log('decoding', bytes.length, 'bytes');
      var state = bytes.reduce(step, {sum: 0, n: 0}), previous = last;
      last = state;
      return Object.freeze({mean: state.n ? state.sum / state.n : null, previous: previous});
    },
  };
})(this);
if (typeof module !== 'undefined' && module.exports) module.exports = codec;
function decodeUplink(input) { return {data: codec.decode(Array.prototype.slice.call(input.bytes)), errors: [], warnings: []}; }
