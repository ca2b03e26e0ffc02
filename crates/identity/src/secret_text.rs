//! The text form of secrets: random characters and a checksum of everything before it.
//!
//! The checksum distinguishes a mistyped secret, or a string that only looks like one, from a real
//! one without a query.

/// The length of 32 random bytes, in characters.
pub(crate) const RANDOM_CHARS: usize = 44;
/// The length of a checksum, in characters.
pub(crate) const CHECKSUM_CHARS: usize = 6;

/// Encodes 32 bytes in base 62, each half separately.
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

/// Returns whether [`random_part`] could have written this.
pub(crate) fn is_random_part(text: &str) -> bool {
    text.len() == RANDOM_CHARS && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Returns the checksum of the text before it.
pub(crate) fn checksum(body: &str) -> String {
    format!("{:0>6}", base62::encode(crc32fast::hash(body.as_bytes())))
}
