//! Log lines on standard error, one a line, in logfmt or JSON.
