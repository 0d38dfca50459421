//! The command line: reads arguments, builds what a command needs, says what came of it.
//! Must not know how a statement is served.

mod args; // what can be typed
mod check; // pgherd check
mod client; // connections to the proxy
mod cluster; // pgherd cluster
mod control; // connections to the servers
mod demo; // pgherd demo
mod failure; // what a command ends with when it ends badly
mod generate; // pgherd generate
mod load_test; // pgherd load-test
mod run; // pgherd run
mod runtime; // the async runtime, logging, TLS provider
mod setup; // pgherd setup
mod tables; // the files of sql/
mod tls; // TLS towards servers
mod ui; // lines on the terminal

use std::process::ExitCode;

use clap::Parser;

use self::args::{Args, ClusterCommand, Command};
use self::failure::Failure;

/// Runs the command that the process was started with. Exit codes: 0, 1 for a failure, 2 for wrong usage.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => {
            let _ = e.print(); // --help and --version come this way too, with code 0
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            ui::complain(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: Args) -> Result<(), Failure> {
    match args.command.unwrap_or(Command::Run(args.config)) {
        Command::Run(config) => {
            let config = config.load()?;
            runtime::logging(&config.log);
            // `run` handles interrupts itself: it drains.
            runtime::block_on(config.workers.get(), run::run(config, run::Control::foreground()))
        }
        Command::Check(config) => runtime::block_on_interruptible(check::check(config.load()?)),
        Command::Setup(setup) => runtime::block_on_interruptible(setup::setup(setup)),
        Command::Generate(generate) => runtime::block_on_interruptible(generate::generate(generate)),
        Command::LoadTest(test) => runtime::block_on(runtime::all_cores(), load_test::load_test(test)),
        Command::Demo(demo) => demo::main(demo),
        Command::Cluster { command } => runtime::block_on_interruptible(async {
            match command {
                ClusterCommand::Up(up) => cluster::up(up).await,
                ClusterCommand::Down(which) => cluster::down(which).await,
                ClusterCommand::Status(which) => cluster::status(which).await,
            }
        }),
    }
}
