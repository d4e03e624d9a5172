package s3sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/s3sink/s3sink/internal/budget"
	"github.com/s3sink/s3sink/internal/deflate"
	"github.com/s3sink/s3sink/internal/memlimit"
	"github.com/s3sink/s3sink/internal/s3put"
	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/upload"
	"github.com/s3sink/s3sink/internal/uuid7"
	"github.com/s3sink/s3sink/internal/vfs"
)

// version is the version of this library, in keys and in the User-Agent.
const version = "0.1.0"

// Sink takes events and delivers them to one bucket. It is safe for concurrent
// use. Several sinks in one process share no locks, queues or limits.
type Sink struct {
	cfg      Config
	own      *Source // the source of Config.SourceID
	sources  *sources
	batcher  *batcher
	uploader *upload.Uploader
	client   *s3put.Client
	env      environment
	scope    *scope

	validations validations
	journal     *spool.Journal // nil without a SpoolDir
	spoolDir    vfs.Dir

	recovery      sync.WaitGroup
	stopRecovery  context.CancelFunc
	unreadable    atomic.Pointer[SpoolError] // the reason why recovery is incomplete, or nil
	foreignEvents atomic.Int64
	otherFolders  map[string]struct{} // key folders of other KeyFormats in the spool; used by the recovery goroutine
	spoolDamaged  atomic.Int64        // bytes, found by recovery
	spoolTorn     atomic.Int64
	uploads       uploadHealth
	refusals      refusals
	hooks         *hookRunner
	guard         guard
	keys          keyTemplate
	ids           uuid7.Source // ids of keys and runs
	runID         func() string
	bucket        string
	prefix        string // with a trailing slash, or ""

	rejected atomic.Int64 // calls of Track that returned an error
	attempts atomic.Int64
	existed  atomic.Int64 // deliveries whose object was already in S3

	warnedParked atomic.Int64 // Unix nanoseconds of the last warning about parked uploads
	warnedOutage atomic.Int64 // Unix nanoseconds of the last warning about an outage
	closing      sync.Once
	closed       chan struct{}
	closeErr     error
}

// New checks the whole configuration and returns a sink that is ready for
// events. It reports every problem with cfg at once, joined, each a
// [*ConfigError]. If the AWS SDK cannot read its configuration files, New returns
// that error alone. New makes no request, so a service can start while S3 is
// down. ctx bounds the loading of the AWS configuration, and the wait for another
// sink that uses Config.SpoolDir. Call [Sink.Close] to stop the sink.
func New(ctx context.Context, cfg Config) (*Sink, error) {
	chosen := cfg.MaxMemory != 0
	limit := cfg.fitMemory(memlimit.Process)
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if !chosen {
		logDefaultMemory(&cfg, limit)
	}
	hooks := &hookRunner{guard: guard{cfg.Logger}}
	scope := newScope(&cfg)
	client, env, err := newClient(ctx, &cfg, scope, hooks)
	if err != nil {
		return nil, err
	}
	keys, err := cfg.KeyFormat.compile()
	if err != nil {
		return nil, err // cannot happen: validate has compiled the KeyFormat
	}
	s := &Sink{
		cfg:     cfg,
		sources: newSources(),
		client:  client,
		env:     env,
		scope:   scope,
		keys:    keys,
		hooks:   hooks,
		guard:   guard{cfg.Logger},
		closed:  make(chan struct{}),

		otherFolders: map[string]struct{}{},
	}
	s.runID = sync.OnceValue(s.ids.New) // drawn at first use: copies of an idle process snapshot must not share it
	s.bucket, s.prefix = cfg.place()
	s.uploader = upload.New(upload.Settings{
		Put:         s.put,
		Concurrency: cfg.UploadConcurrency,
		MinRate:     cfg.MinUploadRate,
		RetryParked: cfg.RetryParked,
		Delivered:   s.onDelivered,
		Attempted:   s.onAttempt,
		Parked:      s.onParked,
		Damaged:     s.onDamaged,
	})
	if s.batcher, err = s.newBatcher(); err != nil {
		return nil, err
	}
	s.refusals.logger, s.refusals.bucket, s.refusals.room = cfg.Logger, s.bucket, s.hasRoom
	s.own = s.sources.get(s, cfg.SourceID)
	if cfg.Disabled {
		cfg.Logger.Warn("s3sink: the sink is disabled: events are checked, counted and dropped", slog.String("bucket", s.bucket))
	}
	if cfg.SpoolDir == "" || cfg.Disabled {
		return s, nil
	}
	dir, err := openSpool(ctx, &cfg)
	if err != nil {
		return nil, err
	}
	if err := s.startSpool(dir); err != nil {
		dir.Close()
		return nil, err
	}
	return s, nil
}

func (s *Sink) newBatcher() (*batcher, error) {
	pool, err := deflate.NewPool(s.cfg.CompressionLevel, runtime.GOMAXPROCS(0))
	if err != nil {
		return nil, err
	}
	b := &batcher{
		lim:       newBatchLimits(&s.cfg),
		pool:      pool,
		spool:     spool.Memory{},
		newHeader: s.newHeader,
		onSealed:  s.onSealed,
		upload:    s.uploader.Add,
		stuck:     s.uploader.Stuck,
		pending:   map[*block]struct{}{},
		waiters:   map[*waiter]struct{}{},
		contents:  map[*spool.Segment][]*block{},
	}
	b.budget = budget.New(s.cfg.MaxMemory, b.relieve)
	return b, nil
}

// Track takes an event of Config.SourceID. It returns nil once the event is in
// a bounded buffer. It never waits for the network or for room: without room it
// returns [ErrBufferFull]. Track encodes the event before it returns, and neither
// keeps nor changes it.
//
// An event is an [Event]; or a json.RawMessage or []byte that holds exactly one
// JSON object, which is checked; or any other value that encoding/json encodes
// as an object (encoding/json replaces invalid UTF-8 in its strings). Anything
// else is an [*EventError], and no other event is affected.
func (s *Sink) Track(event any) error { return s.own.Track(event) }

// TrackContext is Track, but waits for room until ctx ends. While it waits,
// failed uploads are retried sooner than usual. When ctx ends, TrackContext
// returns ctx's cause, joined with the [*UploadError] of the last attempt if
// uploads fail or are parked. The event was not taken then.
func (s *Sink) TrackContext(ctx context.Context, event any) error {
	return s.own.TrackContext(ctx, event)
}

// TrackLine is Track for a line that the caller has encoded: one JSON object in
// UTF-8 on a single line, optionally with a line break at the end. TrackLine
// checks this framing, but not the JSON inside, and allocates nothing. It copies
// the line before it returns.
func (s *Sink) TrackLine(line []byte) error { return s.own.TrackLine(line) }

// TrackLineContext is TrackLine, but waits for room until ctx ends.
func (s *Sink) TrackLineContext(ctx context.Context, line []byte) error {
	return s.own.TrackLineContext(ctx, line)
}

// Source returns the Source of another source id. Calls with the same id return
// the same Source while it is in use. An id is 1 to 256 arbitrary bytes. In keys,
// letters, digits and . _ = - stay as they are, and every other byte becomes ~
// and two hex digits. An id that makes keys too long for S3 is a [*ConfigError].
func (s *Sink) Source(id string) (*Source, error) {
	if err := checkSourceID("SourceID", id); err != nil {
		return nil, err
	}
	if n := s.cfg.longestKey(s.keys, id); n > maxKeyBytes {
		var errs configErrors
		errs.add("SourceID", id, fmt.Sprintf("an id whose keys have at most %d bytes, not up to %d", maxKeyBytes, n))
		return nil, errs[0]
	}
	return s.sources.get(s, id), nil
}

// Flush closes every open object, whatever its age. It returns nil when all
// events that this sink took before the call are in S3, and all events that
// previous runs have left in the SpoolDir. It does not wait for unreadable events
// there (see [Sink.Err]), nor for [Stats.Foreign] events.
//
// When ctx ends first, Flush returns ctx's cause, joined with the [*UploadError]
// of the last attempt if uploads fail or are parked. The sink keeps trying.
// While Flush waits, no backoff is longer than a second, and an attempt without
// progress gets a second attempt in parallel. If uploads are parked, Flush makes
// only a few attempts.
//
// Flush does not stop new events. It returns [ErrClosed] after a Close that
// dropped events, and [ErrDamaged] if events that it waited for were set aside.
// With Config.Disabled it returns nil at once.
func (s *Sink) Flush(ctx context.Context) error { return s.flush(ctx, nil) }

func (s *Sink) flush(ctx context.Context, src *Source) error {
	if s.cfg.Disabled {
		return nil
	}
	defer s.uploader.Urgent(upload.ForDelivery)()
	w := s.batcher.await(src)
	s.batcher.sealAll(src, SealedByFlush)
	s.uploader.Probe()
	if !w.wait(ctx, s.closed) {
		s.batcher.abandon(w)
		if ctx.Err() == nil {
			return fmt.Errorf("%w: %w", ErrClosed, s.closeErr)
		}
		return errors.Join(context.Cause(ctx), s.cause())
	}
	if n := s.batcher.eventCount(dropped); n > 0 { // only Close drops events
		return fmt.Errorf("%w: it dropped %d events", ErrClosed, n)
	}
	if w.damaged > 0 {
		return fmt.Errorf("%w: %d of them", ErrDamaged, w.damaged)
	}
	return nil
}

// Sync waits until every event that was tracked before the call, of every source,
// is on disk or in S3. With [SyncInterval] it gives a batch of events the promise
// of [SyncEach] at the cost of one fsync: a consumer tracks a batch, calls Sync,
// and commits its offset when Sync returns nil. Concurrent callers share one
// fsync.
//
// When ctx ends first, Sync returns ctx's cause. When the disk fails, Sync returns
// a [*SpoolError]; the sink keeps the events and writes them again, so a later
// call may return nil. Without a SpoolDir it returns a [*ConfigError]. After
// [Sink.Close] it returns the result of the last fsync. With Config.Disabled it
// returns nil at once.
func (s *Sink) Sync(ctx context.Context) error {
	switch {
	case s.cfg.Disabled:
		return nil
	case s.journal == nil:
		return &ConfigError{Field: "SpoolDir", Want: "a directory: Sync has no disk to write to without one; Flush waits for S3 instead"}
	}
	err := s.journal.Commit(ctx)
	if err != nil && ctx.Err() == nil {
		return &SpoolError{Err: err}
	}
	return err
}

// closeGrace is how long Close waits for queued hook calls.
const closeGrace = time.Second

// Close stops the sink: it takes no more events, closes every open object and
// uploads until everything is in S3 or ctx ends. As in [Sink.Flush], no backoff is
// longer than a second meanwhile. Close returns nil only if everything is in S3,
// and otherwise a [*CloseError] that counts the remaining events.
//
// Without a SpoolDir the remaining events are lost. With a SpoolDir they are
// fsynced for the next sink, and the error wraps [ErrLeftInSpool]. A short ctx is
// enough then, because ctx bounds the uploads and not the fsync. With
// Config.Disabled, Close returns nil.
//
// ctx bounds the uploads only. Before them, Close compresses the open blocks, at
// most MaxMemory; after them, queued hook calls get one second. Every call waits
// for the same shutdown, which the ctx of the first call bounds, and returns the
// same error.
func (s *Sink) Close(ctx context.Context) error {
	s.closing.Do(func() {
		go func() {
			s.closeErr = s.shutdown(ctx)
			close(s.closed)
		}()
	})
	<-s.closed
	return s.closeErr
}

func (s *Sink) shutdown(ctx context.Context) error {
	defer s.uploader.Urgent(upload.ForDelivery)()
	s.batcher.close()
	s.refusals.close()
	s.awaitRecovery(ctx)
	s.batcher.pool.Wait() // no block may be appended after the journal's last commit
	w := s.batcher.await(nil)
	failed := s.uploadError()
	s.uploader.Probe()
	s.uploader.Unpark()
	w.wait(ctx, nil)
	if err := s.uploadError(); err != nil {
		failed = err // the most recent failure
	}
	left := s.uploader.Stop()
	unread := s.notRecovered()
	var unsaved error
	if s.journal == nil {
		for _, seg := range left {
			s.batcher.settle(seg, dropped)
		}
	} else {
		if unsaved = s.closeSpool(); unsaved != nil {
			s.batcher.dropUnspooled()
		}
	}
	s.validations.end()
	s.client.Close()
	grace, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	s.hooks.drain(grace)

	st := s.Stats()
	if s.cfg.Disabled || st.Dropped == 0 && st.Quarantined == 0 && st.Pending == 0 && unread == nil {
		return nil
	}
	rest := &CloseError{Delivered: st.Delivered, Dropped: st.Dropped, Quarantined: st.Quarantined, Left: st.Pending}
	var state error
	switch {
	case st.Quarantined > 0:
		state = ErrDamaged
	case st.Dropped == 0 && unsaved == nil && s.unreadable.Load() == nil:
		state = ErrLeftInSpool
	}
	if st.Dropped > 0 || st.Pending > 0 || unread != nil {
		rest.Err = errors.Join(state, context.Cause(ctx), failed, unsaved, unread)
	} else {
		rest.Err = state
	}
	return rest
}

// Err returns nil while the sink works. Otherwise it returns the first error of
// this list that applies:
//
//   - the [*UploadError] that parked uploads: S3 refuses them until an operator
//     acts;
//   - the [*SpoolError] that prevents writing events to the SpoolDir, or reading
//     the events that previous runs have left there;
//   - [ErrBufferFull], which wraps the last [*UploadError] if uploads fail: an event
//     was refused within the last minute because no room was left, or there is
//     still no room;
//   - the last [*UploadError], if every attempt has failed for [LastingOutage].
//
// A shorter outage that costs no event shows only in [Stats]: UploadError and
// FailingSince.
//
// Use Err for alerts, and as a readiness probe if a service that cannot record
// events should get no traffic. Do not use it as a liveness probe: a restart does
// not bring S3 back sooner, and without a SpoolDir it drops all pending events.
func (s *Sink) Err() error {
	if err := s.blocked(); err != nil {
		return err
	}
	if s.refusals.active() {
		return s.noRoom()
	}
	if last, since := s.uploads.failing(); last != nil && time.Since(since) >= LastingOutage {
		return last
	}
	return nil
}

// blocked returns the error that stops delivery, writing to the SpoolDir or
// reading from it, or nil.
func (s *Sink) blocked() error {
	if err := s.parked(); err != nil {
		return err
	}
	if s.journal != nil && s.journal.Err() != nil {
		return &SpoolError{Err: s.journal.Err()}
	}
	if err := s.unreadable.Load(); err != nil {
		return err
	}
	return nil
}

// parked returns the UploadError that parked uploads, or nil.
func (s *Sink) parked() error {
	if why := s.uploader.Why(); why != nil {
		return newUploadError(why.Segment.Key, why.Attempts, why.Err)
	}
	return nil
}

// uploadError returns the UploadError that parked uploads, or the UploadError of
// the last attempt if that attempt failed, or nil.
func (s *Sink) uploadError() error {
	if err := s.parked(); err != nil {
		return err
	}
	if last, _ := s.uploads.failing(); last != nil {
		return last
	}
	return nil
}

// cause returns the known reason why callers of Track, Flush or Close wait, or nil.
func (s *Sink) cause() error {
	if err := s.blocked(); err != nil {
		return err
	}
	return s.uploadError()
}

// noRoom returns ErrBufferFull with its cause, if the cause is known.
func (s *Sink) noRoom() error {
	if err := s.cause(); err != nil {
		return &noRoomError{cause: err}
	}
	return ErrBufferFull
}

// hasRoom reports whether Track would take an event that needs that many bytes of
// MaxMemory.
func (s *Sink) hasRoom(bytes int64) bool {
	used, _ := s.batcher.budget.Used()
	return used+bytes <= s.batcher.budget.Size() && s.spoolReady() == nil
}
