//! Compression on request. Many may ask at the same time; one text is compressed once.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use flate2::Compression;
use flate2::write::GzEncoder;

/// The text that was compressed last, and what it became, for as long as somebody still sends them.
static LAST: Mutex<Pair> = Mutex::new((Weak::new(), Weak::new()));
type Pair = (Weak<Vec<u8>>, Weak<Vec<u8>>);

/// Compresses a text, unless another thread has just done that with it; `None` if that fails.
pub(super) fn gzip(text: &Arc<Vec<u8>>) -> Option<Arc<Vec<u8>>> {
    // Held while compressing: whoever wants the same waits for it, and a crowd takes no more than one processor.
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.0.ptr_eq(&Arc::downgrade(text))
        && let Some(compressed) = last.1.upgrade()
    {
        return Some(compressed);
    }
    let compressed = Arc::new(compress(text)?);
    *last = (Arc::downgrade(text), Arc::downgrade(&compressed));
    Some(compressed)
}

/// Fast rather than small: metrics text shrinks to a tenth at any level.
fn compress(text: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_is_compressed_once_and_kept_only_while_it_is_sent() {
        let (text, other) = (Arc::new(vec![b'x'; 9000]), Arc::new(vec![b'x'; 9000]));
        let compressed = gzip(&text).unwrap();
        assert!(Arc::ptr_eq(&compressed, &gzip(&text).unwrap()));
        assert!(!Arc::ptr_eq(&compressed, &gzip(&other).unwrap()));
        assert_eq!((Arc::strong_count(&compressed), Arc::strong_count(&text)), (1, 1));
    }
}
