"""Payload codecs in JavaScript, as the LoRa Alliance specifies them (TS013-1.0.0, Payload Codec API).

`child` runs them in a process of its own; `runner` speaks to it; `script` is a codec's file; `examples` are the vectors
that driver packages carry.
"""
