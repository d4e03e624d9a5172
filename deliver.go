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

// newHeader returns the header of a new segment, with the key of its object.
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
		// The bytes changed in transit, and a retry succeeds, or on this
		// machine.
		if damage := spool.Verify(s.batcher.spool, seg); damage != nil {
			e.Class, e.Err = s3put.Damaged, fmt.Errorf("%w (%w)", damage, e.Err)
			if errors.Is(damage, spool.ErrUnreadable) {
				e.Class = s3put.Unreadable
			}
		}
	}
	s.explainOldKeyFormat(seg, err)
	return result, err
}

// sha256 returns the hash of an object for its signature. It detects damage before
// the request is sent.
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

// metadata returns the metadata that describes an object to readers of the bucket.
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

// newClient returns the client of the configured bucket, and the environment of
// its credentials.
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
		AWS:           base,
		Bucket:        bucket,
		Region:        cfg.Region,
		HintRegion:    hintRegions[cfg.partition()],
		Endpoint:      cfg.Endpoint,
		PathStyle:     cfg.UsePathStyle,
		CreateOnly:    onOrOff(cfg.CreateOnly, CreateOnlyAuto, CreateOnlyOn),
		SignBody:      onOrOff(cfg.SignPayload, SignPayloadAuto, SignPayloadOn),
		Headers:       cfg.headers(),
		Version:       version,
		OwnHTTP:       own,
		Credentials:   providerIn(cfg.Credentials, env),
		CloseProvider: closeProvider,
	})
	return client, env, nil
}

// onOrOff returns whether value is on, or nil if it is auto.
func onOrOff[T comparable](value, auto, on T) *bool {
	if value == auto {
		return nil
	}
	isOn := value == on
	return &isOn
}

func (c *Config) onCredentialRefresh(hooks *hookRunner, r CredentialRefresh) {
	if r.Err != nil && !r.Expires.IsZero() { // without a session, the upload's own error says so
		c.Logger.Warn("s3sink: STS did not renew the session of a role; uploads use the current session until it expires; "+
			"check STS and the trust policy of the role",
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

// outageFailures is the number of failures of one object after which the Logger
// gets a warning.
const outageFailures = 8

func (s *Sink) onAttempt(a upload.Attempt) {
	s.attempts.Add(1)
	s.recordHealth(a)
	if a.Err != nil && a.Failures >= outageFailures && !errors.Is(a.Err, context.Canceled) { // a cancelled attempt is not an outage
		s.warn(&s.warnedOutage, "s3sink: uploads fail again and again; the sink keeps the events and tries again; "+
			"Track refuses new events when MaxMemory or MaxSpoolBytes is used up", newUploadError(a.Segment.Key, a.Number, a.Err))
	}
	hook := s.cfg.Hooks.Attempt
	if hook == nil {
		return
	}
	var err error
	if a.Err != nil { // a cancelled attempt too: its error wraps context.Canceled
		err = newUploadError(a.Segment.Key, a.Number, a.Err)
	}
	s.hooks.call(func() {
		hook(Attempt{Object: objectInfo(a.Segment), Number: a.Number, Duration: a.Duration, Err: err})
	})
}

// recordHealth records whether an attempt shows that S3 can be reached. It ignores
// attempts that Close cancelled, and attempts that failed on this machine.
func (s *Sink) recordHealth(a upload.Attempt) {
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

// onDamaged sets an object aside whose bytes were damaged in the memory or on the
// disk of this machine.
func (s *Sink) onDamaged(r upload.Refusal) {
	s.uploads.clear() // the object may have been the only one that failed
	err := newUploadError(r.Segment.Key, r.Attempts, r.Err)
	err.Err = fmt.Errorf("%w: %w", ErrDamaged, err.Err)
	attrs := []any{slog.String("key", err.Key), slog.Int64("events", r.Segment.Events), slog.Any("error", err.Err)}
	if s.journal != nil {
		name, failed := s.journal.CopyToCorrupt(r.Segment)
		if failed == nil {
			attrs = append(attrs, slog.String("copy_in_spool", name))
		} else {
			attrs = append(attrs, slog.Any("not_all_copied", failed))
		}
	}
	s.cfg.Logger.Error("s3sink: upload: an object was damaged in the memory or on the disk of this machine; it is set aside and its events are not delivered; "+
		"check the memory and the disk", attrs...)
	s.callCorruptHook(objectInfo(r.Segment), err)
	s.batcher.settle(r.Segment, quarantined)
}

// callCorruptHook calls the hook Corrupt, if there is one.
func (s *Sink) callCorruptHook(object ObjectInfo, err *UploadError) {
	if hook := s.cfg.Hooks.Corrupt; hook != nil {
		s.hooks.call(func() { hook(Corrupt{Object: object, Err: err}) })
	}
}

func (s *Sink) onParked(r upload.Refusal) {
	err := newUploadError(r.Segment.Key, r.Attempts, r.Err)
	if hook := s.cfg.Hooks.Parked; hook != nil {
		s.hooks.call(func() { hook(Parked{Object: objectInfo(r.Segment), Err: err}) })
	}
	s.batcher.relieveIfShort() // the memory of this object is not freed soon
	s.warn(&s.warnedParked, "s3sink: uploads are parked: the bucket refuses them until an operator fixes the cause; the sink keeps the events, "+
		"and Track refuses new events when MaxMemory or MaxSpoolBytes is used up; call Sink.Validate to find the cause", err)
}

// warn logs a failed upload, at most once per RetryParked. stamp holds the time of
// the previous warning.
func (s *Sink) warn(stamp *atomic.Int64, message string, err *UploadError) {
	now, last := time.Now().UnixNano(), stamp.Load()
	if last != 0 && now-last < int64(s.cfg.RetryParked) || !stamp.CompareAndSwap(last, now) {
		return
	}
	s.cfg.Logger.Warn(message,
		slog.String("bucket", s.bucket), slog.String("key", err.Key), slog.Int("status", err.Status),
		slog.String("code", err.Code), slog.String("request_id", err.RequestID), slog.Any("error", err.Err),
		slog.Int("attempts", err.Attempts))
}
