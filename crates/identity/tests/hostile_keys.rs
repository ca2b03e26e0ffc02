//! Keys come from strangers: any other string is refused without a panic, and a key with one
//! character changed is refused too.

use baton_identity::ApiKey;
use proptest::prelude::*;
use proptest::sample::Index;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn any_text_is_a_key_or_is_refused(text in prop_oneof![any::<String>(), "bt_[a-z_]{0,10}_?[0-9A-Za-z_é\0]{0,60}"]) {
        if let Ok(key) = ApiKey::parse(&text) {
            prop_assert_eq!(key.expose(), text.as_str());
            prop_assert!(text.starts_with(key.hint()));
        }
    }

    #[test]
    fn a_key_with_one_character_changed_is_none(
        random in any::<[u8; 32]>(),
        at in any::<Index>(),
        other in any::<char>(),
    ) {
        let key = ApiKey::from_random("test", random).unwrap();
        prop_assert_eq!(ApiKey::parse(key.expose()).unwrap().hash(), key.hash());
        let mut changed: Vec<char> = key.expose().chars().collect();
        let at = at.index(changed.len());
        prop_assume!(changed[at] != other);
        changed[at] = other;
        let changed: String = changed.into_iter().collect();
        prop_assert!(ApiKey::parse(&changed).is_err(), "{}", changed);
    }
}
