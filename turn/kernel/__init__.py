"""The kernel data plane: routes as BPF maps, packets carried where they come in."""
