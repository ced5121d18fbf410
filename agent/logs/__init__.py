"""Log streams: from an engine container to whoever asked, never faster than the reader takes them."""
