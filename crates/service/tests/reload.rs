//! A configuration file that changes, and SIGHUP. One test, as signals reach the whole process.
#![cfg(unix)]

use baton_service::config::LogConfig;
use baton_service::{Config, Reloader, Sources, telemetry};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[tokio::test]
async fn a_changed_file_is_taken_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("baton.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let load = {
        let file = file.clone();
        move || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let none: [(&str, &str); 0] = [];
            Config::load(&Sources::from_environment(none).with_file("baton.toml", text))
        }
    };
    write("[limits]\nper_key_per_day = 1\n[worker]\nslots = 300\n");
    let loaded = load().unwrap();
    let reloader = Reloader::new(file.clone(), loaded, load).unwrap();
    let mut live = reloader.live();
    let mut role = live.of_role(Config {
        worker: baton_service::config::WorkerConfig {
            slots: 900,
            ..Default::default()
        },
        ..live.current()
    });
    let telemetry = telemetry::install(&LogConfig::default());
    let hang_up = || kill(Pid::this(), Signal::SIGHUP).unwrap();
    let story = async {
        write("[limits]\nper_key_per_day = 22\n[worker]\nslots = 400\n");
        hang_up();
        let config = live.changed().await;
        assert_eq!(config.limits.per_key_per_day, 22);
        assert_eq!(config.worker.slots, 300, "only a start takes it");
        let config = role.changed().await;
        assert_eq!(
            (config.limits.per_key_per_day, config.worker.slots),
            (22, 900)
        );

        // A file with a mistake changes nothing, not even its correct settings.
        write("[limits]\nper_key_per_day = 333\nper_key_per_minute = \"many\"\n");
        hang_up();
        let refused = "baton_config_reloads_total{outcome=\"refused\"} 0";
        while telemetry.render().contains(refused) {
            tokio::task::yield_now().await;
        }
        assert_eq!(live.current().limits.per_key_per_day, 22);
        // Without a signal: the file is looked at.
        write("[limits]\nper_key_per_day = 4444\n[log]\nfilter = \"warn\"\n");
        assert_eq!(live.changed().await.limits.per_key_per_day, 4444);
        assert_eq!(telemetry.filter().0, "warn");
    };
    tokio::select! {
        never = reloader.run(telemetry) => match never {},
        () = story => {}
    }
}
