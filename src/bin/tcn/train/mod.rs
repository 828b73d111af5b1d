//! `tcn train`: a language model from text files.

mod base;
mod claim;
mod data;
mod documents;
mod finish;
mod large;
mod masked;
mod options;
mod series;
mod start;
mod watch;

use std::path::{Path, PathBuf};

use anyhow::Context;
use candle_tcn::files::names;
use candle_tcn::models::directory::read_config;
use candle_tcn::models::{ModelConfig, extend_vocabulary};
use candle_tcn::text::{Batches, TokenStore, TokenizerSpec};
use candle_tcn::train::loss::CrossEntropy;
use candle_tcn::train::{BatchSource, MaskingConfig, Precision, RunDir, TrainConfig, Trainer};
use candle_tcn::{Error, Result};
use candle_tcn::{plot, train};

use crate::flags::counted;
use crate::{Interrupted, kernel, memory, series_files, signals};
use base::Base;
use claim::Claim;
use data::{Data, TextSource};
use finish::{report, write_card};
use masked::{MaskedData, Task};
pub use options::TrainArgs;
use start::Start;
use watch::Watch;

/// Checkpoints that stay.
const KEEP: usize = 2;

pub fn run(args: TrainArgs) -> anyhow::Result<()> {
    signals::keep_signals("finishing this step, then saving")?;
    let task = series_task(&args)?;
    args.series.check(task)?;
    if task.is_some() || args.resume && is_of_series(&args) {
        return series::run(&args, task);
    }
    let Started { mut trainer, run, data, start, claim: _claim } = match args.resume {
        true => resume(&args)?,
        false => begin(&args)?,
    };
    let parameters = trainer.params().count();
    let field = trainer.network().graph().stack()?.receptive_field()?.total;
    if !args.loudness.quiet {
        say!(
            "{parameters} parameters in {}, receptive field {field}; {} training and {} validation tokens of {}; in {}",
            computed_in(trainer.config().dtype),
            data.train_tokens,
            data.valid_tokens,
            start.source.describe(),
            run.path().display(),
        );
    }
    let waited = trainer.config().validations_waited_for();
    if let (Some(waited), Some(planned)) = (waited, trainer.planned_validations())
        && waited > planned
    {
        say!(
            "--patience or --schedule plateau cannot act: it waits for {waited} validations, and {planned} are \
             planned; lower --valid-every"
        );
    }
    let sampled = start.masking.is_none().then_some(&data.tokenizer);
    let mut watch = Watch::new(sampled, &run, args.loudness)?;
    let outcome = trainer.run(&data.valid, &mut watch)?;
    watch.finish();
    write_loss(&run)?;
    match run.owns_card() {
        true => write_card(&run, &read_config(run.join(names::CONFIG))?, &outcome, &data, &start)?,
        false => say!("{} was edited and stays as it is", run.join(names::CARD).display()),
    }
    report(&args, &run, (parameters, start.masking.is_some()), &outcome)?;
    if outcome.interrupted {
        say!("saved; continue with: tcn train --resume --out {}", run.path().display());
        return Err(Interrupted.into());
    }
    Ok(())
}

/// The task on series that is asked for, or that the data is of.
fn series_task(args: &TrainArgs) -> anyhow::Result<Option<Task>> {
    if args.masks.task.is_some() || args.resume {
        return Ok(args.masks.task.filter(|task| task.is_of_series()));
    }
    let data = args.source()?.data;
    let is_archive = !data.is_empty() && data.iter().all(|path| series_files::is_archive(path));
    if is_archive {
        say!("series with classes: --task classify");
    }
    Ok(is_archive.then_some(Task::Classify))
}

/// `true` for the directory of a run on series.
fn is_of_series(args: &TrainArgs) -> bool {
    args.out.as_ref().is_some_and(|out| out.join(names::TASK).exists())
}

/// The type and the kernel, as `bf16 (avx512)`.
fn computed_in(dtype: Precision) -> String {
    format!("{} ({})", dtype.dtype().as_str(), kernel::chosen().name())
}

/// A run that begins or goes on.
struct Started {
    trainer: Trainer,
    run: RunDir,
    data: Data,
    start: Start,
    claim: Claim,
}

fn begin(args: &TrainArgs) -> anyhow::Result<Started> {
    let mut start = Start::new(args.source()?, args.base.public_name());
    start.source.documents.check()?;
    let base = args.base.read()?;
    let model = args.model_config(base.as_ref())?;
    let config = args.train_config(None, args.defaults(&model)?)?;
    config.validate()?;
    start.masking = args.masks.of(&model)?;
    if start.masking.is_none() && model.end_token().is_some() {
        // recorded, so that the run resumes as what it was
        start.source.documents.or_files();
    }
    start.source.check_cache(start.masking.is_some())?;
    let spec = args.tokenizer.as_ref().map(|spec| spec.parse::<TokenizerSpec>()).transpose()?;
    // refused before any work, and nothing of an old run is touched before all else is known to be right
    let claim = args.out.as_ref().filter(|out| out.is_dir());
    let claim = claim.map(|out| Claim::take(out)).transpose()?;
    match &args.out {
        Some(out) if args.force => refuse_to_remove_inputs(out, &start.source, base.as_ref())?,
        Some(out) => RunDir::check_free(out)?,
        None => {}
    }
    // before gigabytes are read
    let least = match (&base, &spec) {
        (Some(base), _) => base.files.config.vocab_size(),
        (None, Some(TokenizerSpec::Byte | TokenizerSpec::Bpe(_))) => 256,
        (None, _) => 1,
    };
    check_memory(&model.clone().with_end_token(None)?.with_vocab_size(least), &config)?;
    let Prepared { data, model, config, batches } = match start.masking {
        None => running_text(args, &start, (model, base.as_ref()), spec, config)?,
        Some(masking) => {
            masked_sequences(&start, masking, (model, base.as_ref()), spec.as_ref(), config)?
        }
    };
    config.check_freeze(&model.graph()?)?;
    model.geometry()?.receptive_field()?;
    let weights = base.map(|base| extend_vocabulary(&model, &base.files.weights)).transpose()?;
    check_memory(&model, &config)?;
    signals::expect_none()?;
    let name = format!("{}-{}", start.source.stem(), args.model_name());
    let (claim, run) = run_dir(args, claim, &name)?;
    start.write(&run)?;
    data.tokenizer.save(run.join(names::TOKENIZER))?;
    let (graph, json, loss) = (model.graph()?, model.to_json()?, CrossEntropy::default());
    let mut trainer = Trainer::of_graph(config, graph, &json, batches, loss, run.clone())?;
    if let Some(weights) = weights {
        trainer = trainer.with_weights(&weights)?;
    }
    let trainer = trainer.with_kernel(kernel::chosen())?;
    Ok(Started { trainer, run, data, start, claim })
}

/// The directory of a new run: that which is held already, that of the flags, or a new one of this name.
fn run_dir(args: &TrainArgs, claim: Option<Claim>, name: &str) -> anyhow::Result<(Claim, RunDir)> {
    let claim = match (claim, &args.out) {
        (Some(claim), _) => claim,
        (None, Some(out)) => Claim::take(out)?,
        (None, None) => Claim::take_new(name)?,
    };
    let run = match args.force {
        true => RunDir::replace(claim.path(), KEEP)?,
        false => RunDir::create(claim.path(), KEEP)?,
    };
    Ok((claim, run))
}

/// Everything that a new run needs.
struct Prepared {
    data: Data,
    model: ModelConfig,
    config: TrainConfig,
    batches: Box<dyn BatchSource>,
}

/// Windows over a text whose next tokens are predicted.
fn running_text(
    args: &TrainArgs,
    start: &Start,
    (model, base): (ModelConfig, Option<&Base>),
    spec: Option<TokenizerSpec>,
    config: TrainConfig,
) -> anyhow::Result<Prepared> {
    let spec = spec.unwrap_or(TokenizerSpec::Char);
    let (data, tokens, scored) = Data::read(&start.source, &spec, base)?;
    let config = fitted(args, &model, config, tokens.len())?;
    // a model may have more rows than its tokenizer has tokens
    let most = base.map_or(0, |base| base.files.config.vocab_size());
    let model = model.with_vocab_size(data.tokenizer.vocab_size().max(most));
    let model = model.with_end_token(data.end_token)?;
    let model = args.chosen(model, &config, tokens.len())?;
    let batches = laid_out(&config, tokens, scored).with_context(|| start.source.describe())?;
    Ok(Prepared { data, model, config, batches: Box::new(batches) })
}

/// Windows over tokens, of which those that are scored count, or all.
fn laid_out(config: &TrainConfig, tokens: TokenStore, scored: Vec<bool>) -> Result<Batches> {
    let batches = config.lay_out(tokens)?;
    if scored.is_empty() { Ok(batches) } else { batches.scoring(scored) }
}

/// Sequences some of whose tokens are to be found.
fn masked_sequences(
    start: &Start,
    masking: MaskingConfig,
    (model, base): (ModelConfig, Option<&Base>),
    spec: Option<&TokenizerSpec>,
    config: TrainConfig,
) -> anyhow::Result<Prepared> {
    let mut read = MaskedData::read(&start.source, spec, (&model, base), config.seq_len)?;
    let model = read.fit(model, base)?;
    let batches = read.batches(masking, &model, &config)?;
    Ok(Prepared { data: read.data, model, config, batches: Box::new(batches) })
}

fn check_memory(model: &ModelConfig, config: &TrainConfig) -> anyhow::Result<()> {
    memory::check_training(&model.graph()?, config.batch_size, config.seq_len, config.dtype)
}

/// The configuration for a text of `tokens` tokens, and a line about what is less than usual.
fn fitted(
    args: &TrainArgs,
    model: &ModelConfig,
    usual: TrainConfig,
    tokens: usize,
) -> anyhow::Result<TrainConfig> {
    let config = args.train_config(Some(tokens), args.defaults(model)?)?;
    if (config.batch_size, config.seq_len) != (usual.batch_size, usual.seq_len) {
        say!(
            "a short text of {}: batches of {}, each of {} (--batch-size, --seq-len)",
            counted(tokens, "token"),
            counted(config.batch_size, "row"),
            counted(config.seq_len, "token"),
        );
    }
    Ok(config)
}

/// `--force` never removes what the new run is to read.
fn refuse_to_remove_inputs(
    out: &Path,
    source: &TextSource,
    base: Option<&Base>,
) -> anyhow::Result<()> {
    let real = |path: &PathBuf| std::fs::canonicalize(path).ok();
    let goes: Vec<PathBuf> = RunDir::contents(out)?.iter().filter_map(real).collect();
    let inputs = source.data.iter().map(|path| ("--data", path));
    let inputs = inputs.chain(source.valid.iter().map(|path| ("--valid", path)));
    // of a model that lies in the run itself, its weights
    let weights = base.and_then(|base| Some(base.folder.as_ref()?.join(names::WEIGHTS)));
    for (flag, input) in inputs.chain(weights.iter().map(|path| ("--init-from", path))) {
        if real(input).is_some_and(|input| goes.iter().any(|gone| input.starts_with(gone))) {
            bail_usage!(
                "{flag}: {} belongs to the run that --force would replace; move it, or choose another --out",
                input.display()
            );
        }
    }
    Ok(())
}

/// A run that is to go on, before its checkpoint is read.
struct Resumed {
    run: RunDir,
    start: Start,
    claim: Claim,
    /// The flags say where its data is now.
    moved: bool,
}

fn open_to_resume(args: &TrainArgs) -> anyhow::Result<Resumed> {
    let Some(out) = &args.out else {
        bail_usage!("--resume: expected --out DIR, the run to continue");
    };
    if !out.is_dir() {
        let message = "there is no such run; leave out --resume to start one there";
        return Err(Error::file(out, message).into());
    }
    // before anything of the run is looked at
    let claim = Claim::take(out)?;
    let run = RunDir::open(out, KEEP)?;
    let mut start = Start::read(&run.join(names::RUN))?;
    let given = args.source()?;
    let is_given_again = given.is_piped();
    let moved = start.source.move_to(given);
    if !is_given_again && start.source.is_piped() {
        bail_usage!(
            "--resume: the run read its text from standard input, which is gone: name it again with --data FILE, or \
             --data - and the same text"
        );
    }
    Ok(Resumed { run, start, claim, moved })
}

fn resume(args: &TrainArgs) -> anyhow::Result<Started> {
    let Resumed { run, start, claim, moved } = open_to_resume(args)?;
    let (trainer, data) = resumed(args, &start, &run)?;
    let trainer = trainer.with_kernel(kernel::chosen())?;
    for (error, kept) in trainer.damaged() {
        say!("{error}; kept as {}; going on from step {}", kept.display(), trainer.steps());
    }
    if moved {
        start.write(&run)?;
    }
    Ok(Started { trainer, run, data, start, claim })
}

/// The run as its last checkpoint left it, and its data.
fn resumed(args: &TrainArgs, start: &Start, run: &RunDir) -> anyhow::Result<(Trainer, Data)> {
    const MOVED: &str = "--data and --valid tell where the texts of a run are now";
    let tokenizer = TokenizerSpec::File(run.join(names::TOKENIZER));
    let change = |config: &mut TrainConfig| args.change(config);
    let model = read_config(run.join(names::CONFIG))?;
    let Some(masking) = start.masking else {
        let read = Data::read(&start.source, &tokenizer, None).context(MOVED)?;
        let (data, tokens, scored) = read;
        let batches = |config: &TrainConfig| laid_out(config, tokens, scored);
        let (graph, loss) = (model.graph()?, CrossEntropy::default());
        let trainer = Trainer::resume_graph(run.clone(), graph, loss, change, batches)?;
        return Ok((trainer, data));
    };
    let seq_len = Trainer::config_of(run)?.seq_len;
    let read = MaskedData::read(&start.source, Some(&tokenizer), (&model, None), seq_len);
    let mut read = read.context(MOVED)?;
    let (graph, loss) = (model.graph()?, CrossEntropy::default());
    let batches = |config: &TrainConfig| read.batches(masking, &model, config);
    let trainer = Trainer::resume_graph(run.clone(), graph, loss, change, batches)?;
    Ok((trainer, read.data))
}

fn write_loss(run: &RunDir) -> candle_tcn::Result<()> {
    let records = train::read_metrics(run.join(names::METRICS))?;
    let points: Vec<_> = records.iter().map(Into::into).collect();
    run.write(names::LOSS_CURVE, &plot::loss_svg(&points)?)
}
