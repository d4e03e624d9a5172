package s3sink

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/s3sink/s3sink/internal/s3put"
	"github.com/s3sink/s3sink/internal/vfs"
)

var (
	// ErrBufferFull says that an event found no room: events arrive faster
	// than they can be compressed and uploaded, or uploads fail or are parked.
	// Then the same error also wraps the [*UploadError] that says why. The event
	// was not taken; Track may be called again, and TrackContext waits for room
	// instead. The Logger gets a warning at the first such event, one a minute
	// with their number, and one when events are taken again.
	ErrBufferFull = errors.New("s3sink: no room for the event")

	// ErrClosed says that Close was called. The event was not taken.
	ErrClosed = errors.New("s3sink: the sink is closed")

	// ErrSpoolLocked says that another sink uses the SpoolDir, in this process or
	// another one, and that New waited for it until its ctx ended. The error that
	// wraps it names the directory, and the other process as far as it is known.
	ErrSpoolLocked = errors.New("s3sink: another sink uses the spool directory; " + multipleInstances)

	// ErrLeftInSpool says that Close has lost no event, but that some are not in S3
	// yet: they are fsynced in the SpoolDir, and the next sink that has it delivers
	// them. A service may end with success then. Without a SpoolDir, and when an
	// event was dropped or damaged or the disk has failed, the error of Close is
	// another one.
	ErrLeftInSpool = errors.New("s3sink: no event is lost, the rest is in the spool for the next sink")

	// ErrOutcomeUnknown says that an event was taken and that it is not known
	// whether it is on disk: the disk failed, or ctx ended. It may still be
	// delivered, once. A repeat is another event.
	ErrOutcomeUnknown = errors.New("s3sink: the event was taken, but may not be on disk")

	// ErrDamaged says that objects did not match their checksums any more, or
	// that the disk could not read them, and that they were set aside: this
	// machine is at fault. Other objects are not affected.
	ErrDamaged = errors.New("s3sink: events were damaged in memory or in the spool")
)

// multipleInstances is what Segment's documentation says of two destinations of
// one source.
const multipleInstances = "Multiple instance of AWS S3 are not allowed for this source"

// lockedError is an [ErrSpoolLocked].
type lockedError struct {
	*vfs.LockedError
	waited time.Duration
}

func (e *lockedError) Error() string {
	return fmt.Sprintf("s3sink: %v uses the spool directory %s; New waited %v for it: %v; %s",
		e.Holder, e.Path, e.waited.Round(time.Millisecond), e.Err, multipleInstances)
}

func (e *lockedError) Unwrap() []error { return []error{ErrSpoolLocked, e.LockedError.Err} }

// ConfigError is one setting that New or [Sink.Source] refuses. New reports all
// of them at once, joined.
type ConfigError struct {
	Field string // as in Config, for example "Bucket" or "Credentials.RoleARN"
	Value string // what was set; REDACTED for secrets
	Want  string // what is wanted instead
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("s3sink: Config.%s %q: want %s", e.Field, e.Value, e.Want)
}

// EventError is an event that cannot become a line. The event was not taken,
// no other event is affected, and a repeat fails the same way.
type EventError struct {
	Problem string // what is wrong with the event
	Err     error  // the encoder's error or the event's own, if there is one
}

func (e *EventError) Error() string {
	if e.Err == nil {
		return "s3sink: event: " + e.Problem
	}
	return fmt.Sprintf("s3sink: event: %s: %v", e.Problem, e.Err)
}

func (e *EventError) Unwrap() error { return e.Err }

// UploadError is an object that S3 refused, or an attempt that got no answer.
// Its events are still in the sink, and it goes on trying until it is closed.
type UploadError struct {
	Key       string
	Attempts  int    // made so far for this object
	Status    int    // of HTTP; 0: no answer
	Code      string // of AWS, for example "AccessDenied"
	RequestID string // AWS support asks for it
	Err       error

	class s3put.Class
}

func newUploadError(key string, attempts int, e *s3put.Error) *UploadError {
	return &UploadError{
		Key: key, Attempts: attempts,
		Status: e.Status, Code: e.Code, RequestID: e.RequestID,
		Err: e.Err, class: e.Class,
	}
}

func (e *UploadError) Error() string {
	answer := "no answer"
	if e.Status != 0 {
		answer = strings.TrimSpace(fmt.Sprintf("status %d %s", e.Status, e.Code))
	}
	return fmt.Sprintf("s3sink: put %s (attempt %d, %s): %v", e.Key, e.Attempts, answer, e.Err)
}

func (e *UploadError) Unwrap() error { return e.Err }

// noRoomError is ErrBufferFull with its cause. Its text is made when somebody
// reads it: in an outage it is returned for every event.
type noRoomError struct {
	cause error // nil if only the spool is full
	spool bool  // MaxSpoolBytes is reached
}

func (e *noRoomError) Error() string {
	text := ErrBufferFull.Error()
	if e.spool {
		text += " (the spool is full)"
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

func (e *noRoomError) Unwrap() []error {
	if e.cause == nil {
		return []error{ErrBufferFull}
	}
	return []error{ErrBufferFull, e.cause}
}

// SpoolError is why the spool directory cannot be used now. Its text has the
// operation and the cause. It does not name the journal file, which is another one
// at each attempt, so that alerts can be grouped by the text; [SpoolError.File]
// names it, and so does the text of Err.
type SpoolError struct{ Err error }

func (e *SpoolError) Error() string {
	text := e.Err.Error()
	for _, inner := range fileErrors(e.Err) {
		text = strings.ReplaceAll(text, inner.Error(), inner.Op+": "+inner.Err.Error())
	}
	return "s3sink: spool: " + text
}

func (e *SpoolError) Unwrap() error { return e.Err }

// File returns the name of the file in the SpoolDir that the error is about, or "".
func (e *SpoolError) File() string {
	for _, inner := range fileErrors(e.Err) {
		return inner.Path
	}
	return ""
}

// fileErrors returns the errors of files in the SpoolDir that err wraps. A path of
// several elements is that of the directory itself, which is the same each time.
func fileErrors(err error) (all []*fs.PathError) {
	switch wrapper := any(err).(type) { // not errors.As, which returns only the first
	case *fs.PathError:
		if wrapper.Path != "." && !strings.ContainsRune(wrapper.Path, filepath.Separator) {
			return []*fs.PathError{wrapper}
		}
	case interface{ Unwrap() error }:
		return fileErrors(wrapper.Unwrap())
	case interface{ Unwrap() []error }:
		for _, inner := range wrapper.Unwrap() {
			all = append(all, fileErrors(inner)...)
		}
	}
	return all
}

// CloseError says what Close could not bring to S3 before its context ended. It
// wraps [ErrLeftInSpool] if all of that is safe in the spool.
type CloseError struct {
	Delivered int64 // events in S3, over the whole run
	Dropped   int64 // events given up: of a sink without SpoolDir, or that the spool could not write; an attempt or a commit that was cut off may have stored some
	Err       error // ErrLeftInSpool or ErrDamaged if they apply, the context's cause, the last [*UploadError] and a [*SpoolError], joined

	Quarantined int64 // events in objects that were damaged
	Left        int64 // events on the disk, in the spool, for the next sink that has it
}

func (e *CloseError) Error() string {
	return fmt.Sprintf("s3sink: close: %d events delivered, %d left in the spool, %d dropped, %d damaged: %v", e.Delivered, e.Left, e.Dropped, e.Quarantined, e.Err)
}

func (e *CloseError) Unwrap() error { return e.Err }

// Retryable reports whether the call that returned err may succeed if it is
// made again and nothing else changes.
func Retryable(err error) bool {
	var refused *UploadError
	var lost *CloseError
	var wrong *EventError
	switch {
	case err == nil, errors.Is(err, ErrClosed), errors.Is(err, ErrOutcomeUnknown), errors.As(err, &lost), errors.As(err, &wrong):
		return false
	case errors.As(err, &refused):
		return refused.class != s3put.Parked // parked: somebody must act first
	case errors.Is(err, ErrBufferFull), errors.Is(err, ErrSpoolLocked):
		return true // room comes with the next upload, the lock when the other sink is closed
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// configErrors collects what is wrong with a Config.
type configErrors []error

func (c *configErrors) add(field, value, want string) {
	const most = 80 // of a value that may be anything
	if len(value) > most {
		value = strings.ToValidUTF8(value[:most], "") + "…"
	}
	*c = append(*c, &ConfigError{Field: field, Value: value, Want: want})
}
