//! The `pgherd` binary: only calls the library.

use std::sync::Arc;

fn main() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_writer(std::io::stderr).init();
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_stack_size(64 << 20).enable_all().build().unwrap();
    rt.block_on(async {
        let path = std::env::args().nth(1).unwrap_or("proxy.toml".into());
        let loaded = match pgherd::config::Config::load(std::path::Path::new(&path)) { Ok(l) => l, Err(e) => { eprintln!("{e}"); return } };
        let config = Arc::new(loaded.config);
        let proxy = pgherd::session::Proxy::start(config.clone()).unwrap();
        for a in &config.listen {
            let l = tokio::net::TcpListener::bind(a).await.unwrap();
            tokio::spawn(proxy.clone().accept(l));
        }
        tokio::signal::ctrl_c().await.unwrap();
    });
}
