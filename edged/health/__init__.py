"""How the gateway and its machine do: one document for people, the control socket, receivers and the doctor."""
