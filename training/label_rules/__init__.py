"""The papers' rules that turn maps into pseudo-labels. One file each."""
