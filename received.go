package s3sink

import (
	"fmt"
	"time"
)

// byClock reports whether the received time of an event is the time of its Track
// call.
func (s *Sink) byClock() bool { return s.cfg.ReceivedAt == nil }

// receivedAt returns the received time of an event: now, or the result of
// Config.ReceivedAt.
func (s *Sink) receivedAt(event any) (at time.Time, err error) {
	if s.byClock() {
		return time.Now(), nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = &EventError{Problem: "Config.ReceivedAt panicked", Err: fmt.Errorf("%v", p)}
		}
	}()
	at = s.cfg.ReceivedAt(event)
	switch year := at.UTC().Year(); {
	case at.IsZero():
		return time.Now(), nil
	case year < 1970 || year > 9999: // keys cannot hold other years
		return at, &EventError{Problem: fmt.Sprintf("Config.ReceivedAt returned %v; want a time from 1970 to 9999, or the zero time for now", at)}
	}
	return at, nil
}
