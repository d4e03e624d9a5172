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
	// ErrBufferFull says that there is no room for an event: events arrive
	// faster than they can be compressed and uploaded, or uploads fail or are
	// parked. If uploads fail or are parked, the error also wraps their
	// [*UploadError]. The event was not taken. Call Track again later, or call
	// TrackContext, which waits for room. The Logger gets a warning at the first
	// refused event, one per minute with their number, and one when events are
	// taken again.
	ErrBufferFull = errors.New("s3sink: no room for the event")

	// ErrClosed says that Close was called. The event was not taken.
	ErrClosed = errors.New("s3sink: the sink is closed")

	// ErrSpoolLocked says that another sink uses the SpoolDir, in this process or
	// another one, and that New waited for it until ctx ended. The error that
	// wraps it names the directory, and the other process if it is known.
	ErrSpoolLocked = errors.New("s3sink: another sink uses the spool directory; " + multipleInstances)

	// ErrLeftInSpool says that Close has lost no event, but that some events are
	// not in S3 yet: they are fsynced in the SpoolDir, and the next sink with that
	// SpoolDir delivers them. A service can exit with success then. Close does not
	// return this error without a SpoolDir, nor when an event was dropped or
	// damaged, nor when the disk failed.
	ErrLeftInSpool = errors.New("s3sink: no event is lost, the rest is in the spool for the next sink")

	// ErrOutcomeUnknown says that an event was taken, but that it may not be on
	// disk: the disk failed, or ctx ended. It may still be delivered, once.
	// Calling Track again records a second event.
	ErrOutcomeUnknown = errors.New("s3sink: the event was taken, but may not be on disk")

	// ErrDamaged says that objects were set aside, because they no longer matched
	// their checksums or the disk could not read them. The cause is the memory or
	// the disk of this machine. Other objects are not affected.
	ErrDamaged = errors.New("s3sink: events were damaged in memory or in the spool")
)

// multipleInstances is the message that Segment documents for two destinations of
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

// ConfigError is an invalid setting that New or [Sink.Source] rejects. New reports
// all invalid settings at once, joined.
type ConfigError struct {
	Field string // as in Config, for example "Bucket" or "Credentials.RoleARN"
	Value string // the invalid value; REDACTED for secrets
	Want  string // the values that are allowed
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("s3sink: Config.%s %q: want %s", e.Field, e.Value, e.Want)
}

// EventError is an event that cannot be encoded as a line. The event was not
// taken, no other event is affected, and another call with it fails the same way.
type EventError struct {
	Problem string // the reason
	Err     error  // error of the encoder or of the event's own code, or nil
}

func (e *EventError) Error() string {
	if e.Err == nil {
		return "s3sink: event: " + e.Problem
	}
	return fmt.Sprintf("s3sink: event: %s: %v", e.Problem, e.Err)
}

func (e *EventError) Unwrap() error { return e.Err }

// UploadError is an upload that S3 refused or did not answer. The events of the
// object are still in the sink, which tries again until it is closed.
type UploadError struct {
	Key       string
	Attempts  int    // made so far for this object
	Status    int    // HTTP status; 0: no answer
	Code      string // AWS error code, for example "AccessDenied"
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

// noRoomError is ErrBufferFull with its cause. Error builds the text, because
// during an outage Track returns this error for every event.
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

// SpoolError is an error of the spool directory. Its text has the operation and
// the cause, but not the name of the journal file, which differs at each attempt:
// alerts can be grouped by the text. [SpoolError.File] and the text of Err have
// that name.
type SpoolError struct{ Err error }

func (e *SpoolError) Error() string {
	text := e.Err.Error()
	for _, inner := range fileErrors(e.Err) {
		text = strings.ReplaceAll(text, inner.Error(), inner.Op+": "+inner.Err.Error())
	}
	return "s3sink: spool: " + text
}

func (e *SpoolError) Unwrap() error { return e.Err }

// File returns the name of the affected file in the SpoolDir, or "".
func (e *SpoolError) File() string {
	for _, inner := range fileErrors(e.Err) {
		return inner.Path
	}
	return ""
}

// fileErrors returns the errors of files in the SpoolDir that err wraps. It skips
// paths of several elements: they name the directory, which never changes.
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

// CloseError counts the events that Close could not upload before its ctx ended.
// It wraps [ErrLeftInSpool] if all of these events are fsynced in the spool.
type CloseError struct {
	Delivered int64 // events in S3, over the whole run
	Dropped   int64 // events lost: without a SpoolDir, or when the spool could not be written; a cancelled upload or commit may have stored some of them
	Err       error // ErrLeftInSpool or ErrDamaged if they apply, the context's cause, the last [*UploadError] and a [*SpoolError], joined

	Quarantined int64 // events in damaged objects
	Left        int64 // events on disk, in the spool, for the next sink with this SpoolDir
}

func (e *CloseError) Error() string {
	return fmt.Sprintf("s3sink: close: %d events delivered, %d left in the spool, %d dropped, %d damaged: %v", e.Delivered, e.Left, e.Dropped, e.Quarantined, e.Err)
}

func (e *CloseError) Unwrap() error { return e.Err }

// Retryable reports whether the call that returned err may succeed when it is
// repeated and nothing else changes.
func Retryable(err error) bool {
	var refused *UploadError
	var lost *CloseError
	var wrong *EventError
	switch {
	case err == nil, errors.Is(err, ErrClosed), errors.Is(err, ErrOutcomeUnknown), errors.As(err, &lost), errors.As(err, &wrong):
		return false
	case errors.As(err, &refused):
		return refused.class != s3put.Parked // parked: an operator must act first
	case errors.Is(err, ErrBufferFull), errors.Is(err, ErrSpoolLocked):
		return true // the next upload frees room; the other sink releases the lock when it is closed
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// configErrors collects the problems of a Config.
type configErrors []error

func (c *configErrors) add(field, value, want string) {
	const maxValue = 80 // bytes
	if len(value) > maxValue {
		value = strings.ToValidUTF8(value[:maxValue], "") + "…"
	}
	*c = append(*c, &ConfigError{Field: field, Value: value, Want: want})
}
