package s3sink

import (
	"fmt"
	"time"
)

// byClock reports whether events are received when they are tracked.
func (s *Sink) byClock() bool { return s.cfg.ReceivedAt == nil }

// receivedAt returns when an event was received: now, or what the Config's
// function says.
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
	case year < 1970 || year > 9999: // keys have no room for others
		return at, &EventError{Problem: fmt.Sprintf("Config.ReceivedAt returned %v; want a time from 1970 to 9999, or the zero time for now", at)}
	}
	return at, nil
}
