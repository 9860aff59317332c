"""The rehearsal of the paper's suite: every command for real, on miniature data and with miniature configs."""
