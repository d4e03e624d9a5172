package s3sink

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/s3sink/s3sink/internal/s3put"
	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/upload"
)

// newHeader names the object that a partition's next segment will be.
func (s *Sink) newHeader(p *partition, sequence uint64, opened time.Time) spool.Header {
	return spool.Header{
		RunID:    s.runID(),
		Sequence: sequence,
		Bucket:   s.bucket,
		Key: s.prefix + s.keys.key(keyData{
			source: escapeSource(p.source.id), day: p.day, opened: opened, uuid: s.ids.New(),
		}),
		Source: p.source.id,
		Day:    p.day,
		Opened: opened,

		ContentType: s.cfg.ContentType, ContentEncoding: s.cfg.ContentEncoding,
	}
}

// put makes one attempt to store a sealed segment.
func (s *Sink) put(ctx context.Context, order upload.Order) (s3put.Result, error) {
	seg := order.Segment
	var result s3put.Result
	err := s.guard.call(awsCode, func() (err error) {
		result, err = s.client.Put(ctx, s3put.Request{
			Bucket: seg.Bucket, Key: seg.Key,
			Body: s.batcher.spool.Object(seg), Size: seg.Size(), CRC32: seg.CRC32(),
			ContentType: seg.ContentType, ContentEncoding: seg.ContentEncoding,
			Metadata: metadata(seg),
			SHA256:   func() ([sha256.Size]byte, error) { return s.sha256(seg) },
			Progress: order.Progress, NewConnection: order.NewConnection,
		})
		return err
	})
	if err != nil {
		err = s3put.Describe(err)
	}
	var e *s3put.Error
	if errors.As(err, &e) && e.Class == s3put.Integrity {
		// The bytes changed on their way, which a repeat mends, or before.
		if damage := spool.Verify(s.batcher.spool, seg); damage != nil {
			e.Class, e.Err = s3put.Damaged, fmt.Errorf("%w (%w)", damage, e.Err)
			if errors.Is(damage, spool.ErrUnreadable) {
				e.Class = s3put.Unreadable
			}
		}
	}
	s.explainEarlier(seg, err)
	return result, err
}

// sha256 returns the hash with which an object is signed. It finds damage before
// anything is sent.
func (s *Sink) sha256(seg *spool.Segment) ([sha256.Size]byte, error) {
	sum, err := spool.SHA256(s.batcher.spool, seg)
	switch {
	case errors.Is(err, spool.ErrChanged):
		err = &s3put.Error{Class: s3put.Damaged, Err: err}
	case err != nil:
		err = &s3put.Error{Class: s3put.Unreadable, Err: err}
	}
	return sum, err
}

// metadata lets an object say what it holds, to a reader that has nothing but
// the bucket.
func metadata(seg *spool.Segment) map[string]string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	instant := func(t time.Time) string { return t.UTC().Format(isoMillis) }
	return map[string]string{
		metadataPrefix + "events":         number(seg.Events),
		metadataPrefix + "raw-bytes":      number(seg.Raw),
		metadataPrefix + "first-received": instant(seg.First),
		metadataPrefix + "last-received":  instant(seg.Last),
		metadataPrefix + "run":            seg.RunID,
		metadataPrefix + "sequence":       strconv.FormatUint(seg.Sequence, 10),
	}
}

// newClient returns the client of the configured bucket, and what its
// credentials are made from.
func newClient(ctx context.Context, cfg *Config, scope *scope, hooks *hookRunner) (*s3put.Client, environment, error) {
	base, own, err := s3put.LoadConfig(ctx, cfg.AWS, cfg.HTTPClient, cfg.Logger)
	if err != nil {
		return nil, nil, fmt.Errorf("s3sink: load the AWS configuration: %w", err)
	}
	if err := cfg.checkAmbientEndpoints(base); err != nil {
		return nil, nil, err
	}
	env := environmentIn(cfg, base, scope.get, func(r CredentialRefresh) { cfg.onCredentialRefresh(hooks, r) })
	bucket, _ := cfg.place()
	client := s3put.New(s3put.Settings{
		AWS:         base,
		Bucket:      bucket,
		Region:      cfg.Region,
		HintRegion:  hintRegions[cfg.partition()],
		Endpoint:    cfg.Endpoint,
		PathStyle:   cfg.UsePathStyle,
		CreateOnly:  onOrOff(cfg.CreateOnly, CreateOnlyAuto, CreateOnlyOn),
		SignBody:    onOrOff(cfg.SignPayload, SignPayloadAuto, SignPayloadOn),
		Headers:     cfg.headers(),
		Version:     version,
		OwnHTTP:     own,
		Credentials: providerIn(cfg.Credentials, env),
		LetGo:       closeProvider,
	})
	return client, env, nil
}

// onOrOff is nil for automatic.
func onOrOff[T comparable](value, auto, on T) *bool {
	if value == auto {
		return nil
	}
	isOn := value == on
	return &isOn
}

func (c *Config) onCredentialRefresh(hooks *hookRunner, r CredentialRefresh) {
	if r.Err != nil && !r.Expires.IsZero() { // without a session the attempt fails and says why
		c.Logger.Warn("s3sink: a session could not be renewed; the last one serves until it ends",
			slog.String("role", r.Role), slog.Time("ends", r.Expires), slog.Any("error", r.Err))
	}
	if hook := c.Hooks.CredentialRefresh; hook != nil {
		hooks.call(func() { hook(r) })
	}
}

func (s *Sink) onSealed(seg *spool.Segment, why SealReason) {
	if hook := s.cfg.Hooks.Sealed; hook != nil {
		s.hooks.call(func() { hook(Sealed{Object: objectInfo(seg), Reason: why}) })
	}
}

// longOutage is the failure of one object from which on a person should know.
const longOutage = 8

func (s *Sink) onAttempt(a upload.Attempt) {
	s.attempts.Add(1)
	s.noteHealth(a)
	if a.Err != nil && a.Failures >= longOutage && !errors.Is(a.Err, context.Canceled) { // else it was cut off
		s.warn(&s.warnedOutage, "s3sink: uploads fail again and again; events are kept as far as there is room", newUploadError(a.Segment.Key, a.Number, a.Err))
	}
	hook := s.cfg.Hooks.Attempt
	if hook == nil {
		return
	}
	var err error
	if a.Err != nil { // also when it was cut off; then it wraps context.Canceled
		err = newUploadError(a.Segment.Key, a.Number, a.Err)
	}
	s.hooks.call(func() {
		hook(Attempt{Object: objectInfo(a.Segment), Number: a.Number, Duration: a.Duration, Err: err})
	})
}

// noteHealth notes what an attempt says of S3 and of the way there: nothing if
// Close cut it off, or if this machine is at fault.
func (s *Sink) noteHealth(a upload.Attempt) {
	switch {
	case a.Err == nil:
		s.uploads.clear()
	case errors.Is(a.Err, context.Canceled), a.Err.Class == s3put.Unreadable, a.Err.Class == s3put.Damaged:
	default:
		s.uploads.failed(newUploadError(a.Segment.Key, a.Number, a.Err))
	}
}

func (s *Sink) onDelivered(d upload.Delivery) {
	if d.Result.Existed {
		s.existed.Add(1)
	}
	if hook := s.cfg.Hooks.Uploaded; hook != nil {
		s.hooks.call(func() {
			hook(Uploaded{
				Object: objectInfo(d.Segment),
				ETag:   d.Result.ETag, VersionID: d.Result.VersionID, Existed: d.Result.Existed,
				Attempts: d.Attempts, Duration: d.Duration,
			})
		})
	}
	s.batcher.settle(d.Segment, delivered)
}

// onDamaged sets an object aside. Only a fault of this machine's memory leads
// here, or of the disk.
func (s *Sink) onDamaged(r upload.Refusal) {
	s.uploads.clear() // the object may have been the only one that failed
	err := newUploadError(r.Segment.Key, r.Attempts, r.Err)
	err.Err = fmt.Errorf("%w: %w", ErrDamaged, err.Err)
	said := []any{slog.String("key", err.Key), slog.Int64("events", r.Segment.Events), slog.Any("error", err.Err)}
	if s.journal != nil {
		name, failed := s.journal.CopyToCorrupt(r.Segment)
		if failed == nil {
			said = append(said, slog.String("copy_in_spool", name))
		} else {
			said = append(said, slog.Any("not_all_copied", failed))
		}
	}
	s.cfg.Logger.Error("s3sink: an object was damaged before it was sent and is set aside; its events are not delivered", said...)
	s.tellCorrupt(objectInfo(r.Segment), err)
	s.batcher.settle(r.Segment, quarantined)
}

func (s *Sink) tellCorrupt(object ObjectInfo, err *UploadError) {
	if hook := s.cfg.Hooks.Corrupt; hook != nil {
		s.hooks.call(func() { hook(Corrupt{Object: object, Err: err}) })
	}
}

func (s *Sink) onParked(r upload.Refusal) {
	err := newUploadError(r.Segment.Key, r.Attempts, r.Err)
	if hook := s.cfg.Hooks.Parked; hook != nil {
		s.hooks.call(func() { hook(Parked{Object: objectInfo(r.Segment), Err: err}) })
	}
	s.batcher.relieveIfShort() // its memory does not come free for now
	s.warn(&s.warnedParked, "s3sink: uploads are parked: the bucket refuses them until somebody acts; events are kept as far as there is room", err)
}

// warn tells of an upload that fails, once in RetryParked.
func (s *Sink) warn(stamp *atomic.Int64, what string, err *UploadError) {
	now, last := time.Now().UnixNano(), stamp.Load()
	if last != 0 && now-last < int64(s.cfg.RetryParked) || !stamp.CompareAndSwap(last, now) {
		return
	}
	s.cfg.Logger.Warn(what,
		slog.String("bucket", s.bucket), slog.String("key", err.Key), slog.Int("status", err.Status),
		slog.String("code", err.Code), slog.String("request_id", err.RequestID), slog.Any("error", err.Err),
		slog.Int("attempts", err.Attempts))
}
