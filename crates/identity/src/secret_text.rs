//! How secrets are written: random characters and a checksum of all that stands before it.
//!
//! The checksum tells a mistyped secret, or a string that only looks like one, from a real one
//! without asking the database.

/// Characters of 32 random bytes.
pub(crate) const RANDOM_CHARS: usize = 44;
/// Characters of a checksum.
pub(crate) const CHECKSUM_CHARS: usize = 6;

/// 32 bytes in base 62, each half for itself.
pub(crate) fn random_part(random: [u8; 32]) -> String {
    let (high, low) = random.split_at(16);
    let number = |half: &[u8]| {
        half.iter()
            .fold(0_u128, |n, byte| n << 8 | u128::from(*byte))
    };
    format!(
        "{:0>22}{:0>22}",
        base62::encode(number(high)),
        base62::encode(number(low))
    )
}

/// Whether this can be what [`random_part`] wrote.
pub(crate) fn is_random_part(text: &str) -> bool {
    text.len() == RANDOM_CHARS && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The checksum of what stands before it.
pub(crate) fn checksum(body: &str) -> String {
    format!("{:0>6}", base62::encode(crc32fast::hash(body.as_bytes())))
}
