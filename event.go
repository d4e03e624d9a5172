package s3sink

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/s3sink/s3sink/internal/uuid7"
)

// EventType is the type of a call of the Segment Spec.
type EventType string

// The six calls of the Segment Spec.
const (
	TypeIdentify EventType = "identify"
	TypeGroup    EventType = "group"
	TypeTrack    EventType = "track"
	TypePage     EventType = "page"
	TypeScreen   EventType = "screen"
	TypeAlias    EventType = "alias"
)

// Event is a call of the Segment Spec. Track checks it and sets its times as
// Segment's API does, and encodes it with the field names of the Spec. Track also
// takes any other value that encodes as a JSON object.
//
// Type is required, and one of UserID and AnonymousID. A track call also requires
// Event, and a group call GroupID. An alias call requires UserID and PreviousID
// instead.
type Event struct {
	Type EventType

	MessageID   string // at most 100 bytes; generated if empty
	UserID      string
	AnonymousID string
	GroupID     string
	PreviousID  string

	Event    string // of a track call: its name
	Name     string // of a page or screen
	Category string // of a page or screen

	Properties map[string]any // of track, page and screen
	Traits     map[string]any // of identify and group
	Context    map[string]any

	// Integrations is stored but not interpreted. As with Segment's S3
	// destinations, events are stored whichever destinations it selects.
	Integrations map[string]any

	Channel string // such as "server" or "browser"

	// Timestamp is the time of the event, by the clock of the device that
	// recorded it. It becomes originalTimestamp. Years are 0 to 9999. Defaults to
	// SentAt.
	Timestamp time.Time

	// SentAt is the time at which the event was sent, by the same clock. It
	// corrects the timestamp of the line for the error of that clock: receivedAt -
	// (sentAt - originalTimestamp). Defaults to the received time.
	SentAt time.Time
}

// maxMessageID is the limit of the Segment Spec, in bytes.
const maxMessageID = 100

// specEvent is the line of an [Event].
type specEvent struct {
	Type              EventType      `json:"type"`
	MessageID         string         `json:"messageId"`
	AnonymousID       string         `json:"anonymousId,omitempty"`
	UserID            string         `json:"userId,omitempty"`
	GroupID           string         `json:"groupId,omitempty"`
	PreviousID        string         `json:"previousId,omitempty"`
	Event             string         `json:"event,omitempty"`
	Name              string         `json:"name,omitempty"`
	Category          string         `json:"category,omitempty"`
	Properties        map[string]any `json:"properties,omitempty"`
	Traits            map[string]any `json:"traits,omitempty"`
	Context           map[string]any `json:"context,omitempty"`
	Integrations      map[string]any `json:"integrations,omitempty"`
	Channel           string         `json:"channel,omitempty"`
	Timestamp         stamp          `json:"timestamp"`
	OriginalTimestamp stamp          `json:"originalTimestamp"`
	SentAt            stamp          `json:"sentAt"`
	ReceivedAt        stamp          `json:"receivedAt"`
	Version           int            `json:"version"`
}

// isoMillis is the layout of times in the examples of the Segment Spec: ISO 8601,
// UTC, milliseconds.
const isoMillis = "2006-01-02T15:04:05.000Z"

type stamp time.Time

func (s stamp) MarshalJSON() ([]byte, error) {
	return time.Time(s).UTC().AppendFormat(nil, `"`+isoMillis+`"`), nil
}

// specLine returns the line of a call of the Segment Spec.
func (m *lineMaker) specLine(e *Event, received time.Time) ([]byte, error) {
	if problem := e.problem(); problem != "" {
		return nil, &EventError{Problem: problem}
	}
	sent, original := e.SentAt, e.Timestamp
	if sent.IsZero() {
		sent = received
	}
	if original.IsZero() {
		original = sent
	}
	timestamp := original
	if !e.SentAt.IsZero() {
		timestamp = shifted(original, sent, received)
	}
	if problem := cmp.Or(yearProblem("Timestamp", e.Timestamp), yearProblem("SentAt", e.SentAt),
		yearProblem("Timestamp, corrected by SentAt,", timestamp)); problem != "" {
		return nil, &EventError{Problem: problem}
	}
	line := specEvent{
		Type: e.Type, MessageID: e.MessageID,
		AnonymousID: e.AnonymousID, UserID: e.UserID, GroupID: e.GroupID, PreviousID: e.PreviousID,
		Event: e.Event, Name: e.Name, Category: e.Category,
		Properties: e.Properties, Traits: e.Traits, Context: e.Context, Integrations: e.Integrations,
		Channel:   e.Channel,
		Timestamp: stamp(timestamp), OriginalTimestamp: stamp(original),
		SentAt: stamp(sent), ReceivedAt: stamp(received),
		Version: 2, // payload version, as in Segment's files
	}
	if line.MessageID == "" {
		line.MessageID = uuid7.New()
	}
	return m.encode(line, *e)
}

// shifted returns t + (to - from). It avoids time.Duration, which is limited to 292
// years: beyond that, time.Time.Sub returns the limit without an error.
func shifted(t, from, to time.Time) time.Time {
	return time.Unix(t.Unix()+to.Unix()-from.Unix(), int64(t.Nanosecond()+to.Nanosecond()-from.Nanosecond()))
}

// yearProblem describes a time whose year ISO 8601 cannot represent, or returns "".
func yearProblem(field string, t time.Time) string {
	if year := t.UTC().Year(); year < 0 || year > 9999 {
		return fmt.Sprintf("%s is in the year %d; want 0 to 9999", field, year)
	}
	return ""
}

// problem describes the first rule of the Segment Spec that e breaks, or returns "".
func (e *Event) problem() string {
	if len(e.MessageID) > maxMessageID {
		return fmt.Sprintf("MessageID has %d bytes; the Segment Spec allows %d", len(e.MessageID), maxMessageID)
	}
	var missing []string
	need := func(have bool, field string) {
		if !have {
			missing = append(missing, field)
		}
	}
	switch e.Type {
	case TypeIdentify, TypePage, TypeScreen:
	case TypeTrack:
		need(e.Event != "", "Event")
	case TypeGroup:
		need(e.GroupID != "", "GroupID")
	case TypeAlias:
		need(e.UserID != "", "UserID")
		need(e.PreviousID != "", "PreviousID")
	default:
		return fmt.Sprintf("Type %q is not one of identify, group, track, page, screen, alias", e.Type)
	}
	if e.Type != TypeAlias {
		need(e.UserID != "" || e.AnonymousID != "", "UserID or AnonymousID")
	}
	if len(missing) > 0 {
		return fmt.Sprintf("a %s call needs %s", e.Type, strings.Join(missing, " and "))
	}
	return ""
}
