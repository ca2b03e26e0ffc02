//! `baton init`: writes the files of a new deployment. It never replaces one.

mod certificate;
mod secrets;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use self::secrets::Secrets;
use crate::config_command::print;
use crate::private_file;

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The deployment's folder; it is made if missing
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) folder: PathBuf,
    /// The host name by which clients will reach the server, for the first certificate
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    pub(crate) host: String,
}

/// A comment in the delivered `accounts.conf`, which also works without this key.
const XKEY: &str = "# xkey: $BATON_NATS_CALLOUT_XKEY";

/// The files without a secret: path and text.
const PLAIN: [(&str, &str); 21] = [
    ("baton.toml", include_str!("init/baton.toml")),
    (
        "compose.yaml",
        include_str!("../../deployments/compose.yaml"),
    ),
    (
        "compose.cluster.yaml",
        include_str!("../../deployments/compose.cluster.yaml"),
    ),
    (
        "compose.dev.yaml",
        include_str!("../../deployments/compose.dev.yaml"),
    ),
    (
        "litellm/config.yaml",
        include_str!("../../deployments/litellm/config.yaml"),
    ),
    (
        "nginx/baton.conf",
        include_str!("../../deployments/nginx/baton.conf"),
    ),
    (
        "nginx/host.conf",
        include_str!("../../deployments/nginx/host.conf"),
    ),
    (
        "nginx/nginx.conf",
        include_str!("../../deployments/nginx/nginx.conf"),
    ),
    (
        "baton.example.toml",
        include_str!("../../deployments/baton.example.toml"),
    ),
    ("nats/cluster.conf", include_str!("../../nats/cluster.conf")),
    ("nats/nats.conf", include_str!("../../nats/nats.conf")),
    (
        "nats/accounts.conf",
        include_str!("../../nats/accounts.conf"),
    ),
    (
        "prometheus/alerts.yml",
        include_str!("../../deployments/prometheus/alerts.yml"),
    ),
    (
        "prometheus/prometheus.compose.yml",
        include_str!("../../deployments/prometheus/prometheus.compose.yml"),
    ),
    (
        "prometheus/rules.yml",
        include_str!("../../deployments/prometheus/rules.yml"),
    ),
    (
        "grafana/dashboards/models.json",
        include_str!("../../deployments/grafana/dashboards/models.json"),
    ),
    (
        "grafana/dashboards/parts.json",
        include_str!("../../deployments/grafana/dashboards/parts.json"),
    ),
    (
        "grafana/dashboards/runs.json",
        include_str!("../../deployments/grafana/dashboards/runs.json"),
    ),
    (
        "grafana/dashboards/service.json",
        include_str!("../../deployments/grafana/dashboards/service.json"),
    ),
    (
        "grafana/provisioning/dashboards/baton.yml",
        include_str!("../../deployments/grafana/provisioning/dashboards/baton.yml"),
    ),
    (
        "grafana/provisioning/datasources/prometheus.yml",
        include_str!("../../deployments/grafana/provisioning/datasources/prometheus.yml"),
    ),
];

pub(crate) fn run(options: &InitArgs) -> anyhow::Result<()> {
    let folder = &options.folder;
    let made = write(folder, &options.host)?;
    let shown = folder.display();
    if made.is_empty() {
        return print(&format!(
            "{shown} has everything already: nothing was changed"
        ));
    }
    let list = made.join("\n  ");
    print(&format!("made in {shown}:\n  {list}\n\n{NEXT}"))
}

const NEXT: &str = "\
Keep .env, secrets/ and tls/ to yourself: they open everything.

Next, in that folder:
  put your providers' keys into .env (or take compose.dev.yaml along, with a demo model)
  docker compose up --detach --wait
  docker compose run --rm cli keys create --name first

Without containers, each role reads its secrets from secrets/: deployments/systemd has a unit for each.";

/// Writes the missing files and returns their paths.
fn write(folder: &Path, host: &str) -> anyhow::Result<Vec<String>> {
    let mut made = Vec::new();
    let paths = Secrets::paths();
    let (there, missing): (Vec<_>, Vec<_>) =
        paths.iter().partition(|path| folder.join(path).exists());
    match (there.as_slice(), missing.as_slice()) {
        (_, []) => {}
        ([], _) => {
            let texts = Secrets::draw(host)?.texts()?;
            for (path, text) in paths.iter().zip(texts) {
                let file = folder.join(path);
                private_folder(&file)?;
                private_file::create(&file, &text).with_context(|| cannot_write(&file))?;
                made.push(path.clone());
            }
        }
        (there, missing) => bail!(
            "{} has some of the secrets and not others, and new ones would not fit them. Missing: {}. \
             Restore those, or remove the rest to begin anew: {}",
            folder.display(),
            joined(missing),
            joined(there),
        ),
    }
    for (path, text) in PLAIN {
        let file = folder.join(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).with_context(|| cannot_write(parent))?;
        }
        let opened = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&file);
        match opened {
            Ok(mut new) => {
                let text = text.replace(XKEY, "xkey: $BATON_NATS_CALLOUT_XKEY");
                new.write_all(text.as_bytes())
                    .with_context(|| cannot_write(&file))?;
                made.push(path.to_owned());
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| cannot_write(&file)),
        }
    }
    Ok(made)
}

/// Makes the folder of a secret's file. Only its owner may read a new one, unless it is the
/// deployment's own folder.
fn private_folder(file: &Path) -> anyhow::Result<()> {
    let Some(folder) = file.parent() else {
        return Ok(());
    };
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).with_context(|| cannot_write(folder))?;
    #[cfg(unix)]
    if matches!(folder.file_name(), Some(name) if name == "secrets" || name == "tls") {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
            .with_context(|| cannot_write(folder))?;
    }
    Ok(())
}

fn cannot_write(path: &Path) -> String {
    format!("{} cannot be written", path.display())
}

fn joined(paths: &[&String]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.as_str()).collect();
    names.join(", ")
}
