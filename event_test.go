package s3sink_test

import (
	"encoding/json"
	"errors"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

type cycle struct{ Next *cycle }

type panics struct{}

func (panics) MarshalJSON() ([]byte, error) { panic("from user code") }

type writes string // MarshalJSON returns the string unchanged

func (w writes) MarshalJSON() ([]byte, error) { return []byte(w), nil }

// Given an invalid event, then Track returns an error with the reason, and the
// next event is accepted.
func TestTrack_InvalidEvents(t *testing.T) {
	t.Parallel()
	loop := new(cycle)
	loop.Next = loop
	for name, tt := range map[string]struct {
		event any
		want  string // part of the error
	}{
		"nil":                     {nil, "null"},
		"bare number":             {5, "not an object"},
		"bare string":             {"text", "a string"},
		"array":                   {[]int{1}, "an array"},
		"NaN":                     {map[string]float64{"n": math.NaN()}, "NaN"},
		"cycle":                   {loop, "cycle"},
		"channel":                 {map[string]any{"c": make(chan int)}, "chan int"},
		"panic":                   {panics{}, "from user code"},
		"panic inside":            {map[string]any{"p": panics{}}, "from user code"},
		"nil pointer":             {(*cycle)(nil), "null"},
		"marshals to a number":    {writes("5"), "not an object"},
		"marshals to nonsense":    {writes("{"), "cannot be encoded"},
		"no bytes":                {[]byte{}, "no bytes"},
		"only spaces":             {[]byte(" \n "), "no bytes"},
		"raw number":              {json.RawMessage("5"), "not an object"},
		"raw array":               {json.RawMessage("[1]"), "an array"},
		"two values":              {[]byte(`{"a":1}{"b":2}`), "after top-level value"},
		"two lines":               {[]byte("{\"a\":1}\n{\"b\":2}"), "after top-level value"},
		"trailing bytes":          {[]byte(`{"a":1} x`), "after top-level value"},
		"trailing no-break space": {[]byte("{}\u00a0"), "after top-level value"},
		"trailing form feed":      {[]byte("{}\f"), "after top-level value"},
		"cut off":                 {[]byte(`{"a":1`), "unexpected end"},
		"newline in a string":     {[]byte("{\"a\":\"x\ny\"}"), "invalid character"},
		"invalid UTF-8":           {[]byte("{\"a\":\"\xff\"}"), "UTF-8"},
		"invalid UTF-8 inside":    {map[string]any{"raw": json.RawMessage("\"\xff\"")}, "UTF-8"},
		"too deep":                {[]byte(strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000)), "depth"},
		"1 GiB":                   {make([]byte, 1<<30), "MaxEventBytes"},
		"too long when encoded":   {map[string]string{"a": strings.Repeat("x", s3sink.DefaultMaxEventBytes)}, "MaxEventBytes"},
		"empty Event":             {s3sink.Event{}, "Type"},
		"nil *Event":              {(*s3sink.Event)(nil), "nil *Event"},
		"unknown type":            {s3sink.Event{Type: "click", UserID: "u"}, `"click"`},
		"track without name":      {s3sink.Event{Type: s3sink.TypeTrack, UserID: "u"}, "needs Event"},
		"track without id":        {s3sink.Event{Type: s3sink.TypeTrack, Event: "e"}, "UserID or AnonymousID"},
		"identify without id":     {s3sink.Event{Type: s3sink.TypeIdentify}, "UserID or AnonymousID"},
		"page without id":         {s3sink.Event{Type: s3sink.TypePage}, "UserID or AnonymousID"},
		"screen without id":       {s3sink.Event{Type: s3sink.TypeScreen}, "UserID or AnonymousID"},
		"group without group id":  {s3sink.Event{Type: s3sink.TypeGroup, UserID: "u"}, "GroupID"},
		"group without id":        {s3sink.Event{Type: s3sink.TypeGroup, GroupID: "g"}, "UserID or AnonymousID"},
		"alias without old id":    {s3sink.Event{Type: s3sink.TypeAlias, UserID: "u"}, "PreviousID"},
		"alias without id":        {s3sink.Event{Type: s3sink.TypeAlias, PreviousID: "p"}, "UserID"},
		"long message id":         {s3sink.Event{Type: s3sink.TypePage, UserID: "u", MessageID: strings.Repeat("m", 101)}, "101"},
		"NaN in an Event":         {s3sink.Event{Type: s3sink.TypePage, UserID: "u", Properties: map[string]any{"n": math.NaN()}}, "NaN"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, cfg := s3sinktest.New(t)
			sink := open(t, cfg)
			var wrong *s3sink.EventError
			if err := sink.Track(tt.event); !errors.As(err, &wrong) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an EventError that says %q", err, tt.want)
			} else if s3sink.Retryable(err) {
				t.Error("retryable, but it fails the same way again")
			}
			if err := sink.Track(map[string]bool{"next": true}); err != nil {
				t.Errorf("the next event: %v", err)
			}
			mustClose(t, sink)
			if got := lines(t, server, s3sinktest.Bucket); !slices.Equal(got, []string{`{"next":true}`}) {
				t.Errorf("stored %q", got)
			}
			if st := sink.Stats(); st.Rejected != 1 || st.Accepted != 1 {
				t.Errorf("rejected %d, accepted %d, want 1 and 1", st.Rejected, st.Accepted)
			}
		})
	}
}

func TestBadLines(t *testing.T) {
	t.Parallel()
	_, cfg := s3sinktest.New(t)
	sink := open(t, cfg)
	for name, line := range map[string]string{
		"empty":           "",
		"newline":         "\n",
		"number":          "5",
		"array":           "[]",
		"open":            `{"a":1`,
		"line break":      "{\"a\":\n1}",
		"carriage return": "{\"a\":\r1}",
		"two line ends":   "{}\n\n",
		"invalid UTF-8":   "{\"a\":\"\xc3\x28\"}",
		"too long":        `{"a":"` + strings.Repeat("x", s3sink.DefaultMaxEventBytes) + `"}`,
	} {
		var wrong *s3sink.EventError
		if err := sink.TrackLine([]byte(line)); !errors.As(err, &wrong) {
			t.Errorf("%s: %v, want an EventError", name, err)
		}
	}
	if st := sink.Stats(); st.Accepted != 0 {
		t.Errorf("%d accepted", st.Accepted)
	}
}

type typed struct {
	Name string  `json:"name"`
	Note string  `json:"note,omitempty"`
	Cost float64 `json:"cost"`
}

func TestGoodEvents(t *testing.T) {
	t.Parallel()
	server, cfg := s3sinktest.New(t)
	sink := open(t, cfg)
	full := `{"a":"` + strings.Repeat("x", s3sink.DefaultMaxEventBytes-len(`{"a":""}`)) + `"}`
	var want []string
	for _, tt := range []struct {
		event any
		want  string
	}{
		{typed{Name: "a<b>&c", Cost: 1.5}, `{"name":"a<b>&c","cost":1.5}`},
		{&typed{Note: "line\nbreak"}, `{"name":"","note":"line\nbreak","cost":0}`},
		{map[string]any{"b": 1, "a": nil}, `{"a":null,"b":1}`},
		{json.RawMessage(`{"raw": 1}`), `{"raw": 1}`},
		{[]byte(" {\"raw\":\t2}\n"), "{\"raw\":\t2}"},
		{[]byte("{\n  \"pretty\": [\r\n 1,\n 2\n ]\n}"), `{"pretty":[1,2]}`},
		{[]byte(`{"u":"\u2028  é 😋"}`), `{"u":"\u2028  é 😋"}`},
		{[]byte(`{"twice":1,"twice":2}`), `{"twice":1,"twice":2}`},
		{map[string]any{"raw": json.RawMessage("[1,\n2]")}, `{"raw":[1,2]}`},
		{map[string]any{"w": writes("{ \"x\" :\n 1 }")}, `{"w":{"x":1}}`},
		{struct{}{}, `{}`},
		{[]byte(full), full},
	} {
		if err := sink.Track(tt.event); err != nil {
			t.Errorf("%T %.40v: %v", tt.event, tt.event, err)
		}
		want = append(want, tt.want)
	}
	for _, line := range []string{`{"line":1}`, "{\"line\":2}\n", "{\"line\":3}\r\n"} {
		if err := sink.TrackLine([]byte(line)); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		want = append(want, strings.TrimRight(line, "\r\n"))
	}
	mustClose(t, sink)
	got := lines(t, server, s3sinktest.Bucket)
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("line %d differs: got %.80q, want %.80q", i, got[i:min(i+1, len(got))], want[i:min(i+1, len(want))])
		}
	}
}

// When Track has returned, then the caller may change the argument; Track does
// not change it.
func TestTrack_CopiesArgument(t *testing.T) {
	t.Parallel()
	server, cfg := s3sinktest.New(t)
	sink := open(t, cfg)
	buf := []byte(`{"n":1}` + "\n  ")
	for _, track := range []func() error{
		func() error { return sink.Track(buf) },
		func() error { return sink.TrackLine(buf[:7]) },
		func() error { return sink.TrackContext(t.Context(), json.RawMessage(buf)) },
		func() error { return sink.TrackLineContext(t.Context(), buf[:8]) },
	} {
		copy(buf, `{"n":1}`)
		if err := track(); err != nil {
			t.Fatal(err)
		}
		if got := string(buf); got != "{\"n\":1}\n  " {
			t.Fatalf("the argument was changed to %q", got)
		}
		copy(buf, `XXXXXXX`)
	}
	mustClose(t, sink)
	if got := lines(t, server, s3sinktest.Bucket); !slices.Equal(got, slices.Repeat([]string{`{"n":1}`}, 4)) {
		t.Errorf("stored %q", got)
	}
}

func TestSegmentCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the clock stands at 2000-01-01 00:00 UTC
		server, cfg := s3sinktest.New(t, s3sinktest.InMemory())
		sink := open(t, cfg)
		at := func(s string) time.Time {
			tm, err := time.Parse(time.RFC3339, s)
			if err != nil {
				t.Fatal(err)
			}
			return tm
		}
		const received = `"receivedAt":"2000-01-01T00:00:00.000Z","version":2}`
		const unstamped = `"timestamp":"2000-01-01T00:00:00.000Z","originalTimestamp":"2000-01-01T00:00:00.000Z","sentAt":"2000-01-01T00:00:00.000Z",` + received
		for _, tt := range []struct {
			name  string
			event s3sink.Event
			want  string
		}{
			{"identify", s3sink.Event{Type: s3sink.TypeIdentify, MessageID: "m", UserID: "u", Traits: map[string]any{"plan": "pro"}},
				`{"type":"identify","messageId":"m","userId":"u","traits":{"plan":"pro"},` + unstamped},
			{"group", s3sink.Event{Type: s3sink.TypeGroup, MessageID: "m", AnonymousID: "a", GroupID: "g"},
				`{"type":"group","messageId":"m","anonymousId":"a","groupId":"g",` + unstamped},
			{"track", s3sink.Event{Type: s3sink.TypeTrack, MessageID: "m", UserID: "u", Event: "Order Completed", Properties: map[string]any{"total": 9.5}},
				`{"type":"track","messageId":"m","userId":"u","event":"Order Completed","properties":{"total":9.5},` + unstamped},
			{"page", s3sink.Event{Type: s3sink.TypePage, MessageID: "m", UserID: "u", Name: "Home", Category: "Docs", Channel: "browser"},
				`{"type":"page","messageId":"m","userId":"u","name":"Home","category":"Docs","channel":"browser",` + unstamped},
			{"screen", s3sink.Event{Type: s3sink.TypeScreen, MessageID: "m", UserID: "u", Context: map[string]any{"ip": "8.8.8.8"}},
				`{"type":"screen","messageId":"m","userId":"u","context":{"ip":"8.8.8.8"},` + unstamped},
			{"alias", s3sink.Event{Type: s3sink.TypeAlias, MessageID: "m", UserID: "u", PreviousID: "p"},
				`{"type":"alias","messageId":"m","userId":"u","previousId":"p",` + unstamped},
			{"integrations change nothing", s3sink.Event{Type: s3sink.TypePage, MessageID: "m", UserID: "u", Integrations: map[string]any{"All": false}},
				`{"type":"page","messageId":"m","userId":"u","integrations":{"All":false},` + unstamped},
			{"own timestamp", s3sink.Event{Type: s3sink.TypePage, MessageID: "m", UserID: "u", Timestamp: at("1999-12-31T22:00:00+01:00")},
				`{"type":"page","messageId":"m","userId":"u","timestamp":"1999-12-31T21:00:00.000Z","originalTimestamp":"1999-12-31T21:00:00.000Z","sentAt":"2000-01-01T00:00:00.000Z",` + received},
			// The client's clock is an hour ahead; it waited 10 s to send.
			{"skewed clock", s3sink.Event{Type: s3sink.TypePage, MessageID: "m", UserID: "u", Timestamp: at("2000-01-01T00:59:50Z"), SentAt: at("2000-01-01T01:00:00Z")},
				`{"type":"page","messageId":"m","userId":"u","timestamp":"1999-12-31T23:59:50.000Z","originalTimestamp":"2000-01-01T00:59:50.000Z","sentAt":"2000-01-01T01:00:00.000Z",` + received},
			{"sent without a timestamp", s3sink.Event{Type: s3sink.TypePage, MessageID: "m", UserID: "u", SentAt: at("2000-01-01T01:00:00Z")},
				`{"type":"page","messageId":"m","userId":"u","timestamp":"2000-01-01T00:00:00.000Z","originalTimestamp":"2000-01-01T01:00:00.000Z","sentAt":"2000-01-01T01:00:00.000Z",` + received},
		} {
			if err := sink.Track(tt.event); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			if err := sink.Track(&tt.event); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			mustFlush(t, sink)
			all := lines(t, server, s3sinktest.Bucket)
			if got := all[len(all)-2:]; got[0] != tt.want || got[1] != tt.want {
				t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
			}
		}
		mustClose(t, sink)
	})
}

func TestMessageIDIsDrawn(t *testing.T) {
	t.Parallel()
	server, cfg := s3sinktest.New(t)
	sink := open(t, cfg)
	event := s3sink.Event{Type: s3sink.TypePage, UserID: "u"}
	for range 2 {
		mustTrack(t, sink, &event)
	}
	mustClose(t, sink)
	if event.MessageID != "" {
		t.Error("the argument was written to")
	}
	ids := regexp.MustCompile(`"messageId":"([0-9a-f-]{36})"`)
	var got []string
	for _, line := range lines(t, server, s3sinktest.Bucket) {
		if m := ids.FindStringSubmatch(line); m != nil {
			got = append(got, m[1])
		}
	}
	if len(got) != 2 || got[0] == got[1] {
		t.Errorf("ids %v, want two different ones", got)
	}
}

// Given a time that ISO 8601 cannot represent, then the error names its field.
// The years 0 and 9999 are valid.
func TestEvent_YearOutOfRange(t *testing.T) {
	t.Parallel()
	date := func(year int) time.Time { return time.Date(year, 6, 1, 12, 0, 0, 5_999_999, time.UTC) }
	synctest.Test(t, func(t *testing.T) { // the clock stands at 2000-01-01 00:00 UTC
		server, cfg := s3sinktest.New(t, s3sinktest.InMemory())
		sink := open(t, cfg)
		for _, tt := range []struct {
			timestamp, sentAt time.Time
			want              string // "": the event is accepted
		}{
			{timestamp: date(10000), want: "Timestamp is in the year 10000; want 0 to 9999"},
			{timestamp: date(-1), want: "Timestamp is in the year -1; want 0 to 9999"},
			{timestamp: time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -3600)), want: "Timestamp is in the year 10000"},
			{timestamp: time.UnixMilli(1 << 62), want: "Timestamp is in the year"},
			{sentAt: date(12345), want: "SentAt is in the year 12345; want 0 to 9999"},
			{timestamp: date(9999), sentAt: date(1990), want: "Timestamp, corrected by SentAt, is in the year 10008; want 0 to 9999"},
			{timestamp: date(1), sentAt: date(9990), want: "Timestamp, corrected by SentAt, is in the year -7989"},
			{timestamp: date(0)},
			{timestamp: date(9999)},
			{timestamp: date(9990), sentAt: date(2100)},
			// The times are more than 292 years apart, which exceeds a Duration.
			{timestamp: date(1), sentAt: time.Date(1999, 12, 31, 23, 59, 50, 0, time.UTC)},
		} {
			err := sink.Track(s3sink.Event{Type: s3sink.TypePage, MessageID: "m", UserID: "u", Timestamp: tt.timestamp, SentAt: tt.sentAt})
			var wrong *s3sink.EventError
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("Timestamp %v, SentAt %v: %v", tt.timestamp, tt.sentAt, err)
			case tt.want != "" && (!errors.As(err, &wrong) || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("Timestamp %v, SentAt %v: got %v, want an EventError that says %q", tt.timestamp, tt.sentAt, err, tt.want)
			}
		}
		mustClose(t, sink)
		var got []string
		for _, line := range lines(t, server, s3sinktest.Bucket) {
			got = append(got, regexp.MustCompile(`"timestamp":"([^"]*)"`).FindStringSubmatch(line)[1])
		}
		want := []string{"0000-06-01T12:00:00.005Z", "9999-06-01T12:00:00.005Z", "9889-12-31T00:00:00.000Z", "0001-06-01T12:00:10.005Z"}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("timestamps %q, want %q", got, want)
		}
	})
}

// Given an event with a part that cannot be encoded, then the error names that
// part as the caller knows it.
func TestEventError_NamesPart(t *testing.T) {
	t.Parallel()
	_, cfg := s3sinktest.New(t)
	sink := open(t, cfg)
	itself := map[string]any{}
	itself["again"] = map[string]any{"x": itself}
	page := func(properties, traits map[string]any) s3sink.Event {
		return s3sink.Event{Type: s3sink.TypePage, UserID: "u", Properties: properties, Traits: traits}
	}
	event := page(map[string]any{"a": 1, "cart": []any{1, map[string]float64{"price": math.Inf(1)}}}, nil)
	far := time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		event any
		want  string
	}{
		{event, `Properties["cart"][1]["price"] of an Event cannot be encoded as JSON: json: unsupported value: +Inf`},
		{&event, `Properties["cart"][1]["price"] of an Event cannot be encoded`},
		{page(nil, map[string]any{"born": far}), `Traits["born"] of an Event cannot be encoded as JSON: json: error calling MarshalJSON for type time.Time: Time.MarshalJSON: year outside of range [0,9999]`},
		{page(map[string]any{"p": panics{}}, nil), `encoding Properties["p"] of an Event panicked: from user code`},
		{page(itself, nil), `Properties["again"]["x"] of an Event cannot be encoded`},
		{map[string]any{"a b": make(chan int)}, `["a b"] of a map[string]interface {} cannot be encoded as JSON: json: unsupported type: chan int`},
		{struct {
			Skip chan int `json:"-"`
			typed
			Deep *[1]any
		}{Deep: &[1]any{math.NaN()}}, "Deep[0] of a struct {"},
		{typed{Cost: math.NaN()}, "Cost of a s3sink_test.typed cannot be encoded"},
		{math.NaN(), "a float64 cannot be encoded"},
		{map[int]any{1: math.NaN()}, "a map[int]interface {} cannot be encoded"},
		{writes("{"), "a s3sink_test.writes cannot be encoded"},
	} {
		var wrong *s3sink.EventError
		if err := sink.Track(tt.event); !errors.As(err, &wrong) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want an EventError that says %s", err, tt.want)
		} else if strings.Contains(err.Error(), "specEvent") {
			t.Errorf("an internal type in %v", err)
		}
	}
}

// Given an event that begins with a byte order mark, which is invisible, then
// the error names it.
func TestTrack_ByteOrderMark(t *testing.T) {
	t.Parallel()
	_, cfg := s3sinktest.New(t)
	sink := open(t, cfg)
	for text, want := range map[string]string{
		"\ufeff{}":            "begins with a byte order mark; want",
		" \n\ufeff {\"a\":1}": "begins with a byte order mark; want",
		"\xff\xfe{\x00}\x00":  "begins with a byte order mark of UTF-16; want",
	} {
		var wrong *s3sink.EventError
		if err := sink.Track([]byte(text)); !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("Track: got %v, want an EventError that says %q", err, want)
		}
		if err := sink.TrackLine([]byte(strings.TrimLeft(text, " \n"))); !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("TrackLine: got %v, want an EventError that says %q", err, want)
		}
	}
}
