"""The commands of `%infer`."""
