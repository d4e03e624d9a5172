package s3sink_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

func TestKeyFormats(t *testing.T) {
	t.Parallel()
	for format, want := range map[s3sink.KeyFormat]string{
		"":                           `segment-logs/test-source/946684800000/946684800000\.[0-9a-f]{12}\.\d+\.\d+\.\d+\.UUID\.gz`,
		s3sink.SegmentKeys:           `segment-logs/test-source/946684800000/946684800000\.[0-9a-f]{12}\.\d+\.\d+\.\d+\.UUID\.gz`,
		s3sink.RudderStackKeys:       `rudder-logs/test-source/01-01-2000/946684800\.test-source\.UUID\.json\.gz`,
		s3sink.RudderStackListedKeys: `rudder-logs/test-source/2000-01-01/946684800\.test-source\.UUID\.json\.gz`,
		s3sink.HiveKeys:              `events/source=test-source/day=2000-01-01/946684800000-UUID\.json\.gz`,
		"{uuid}":                     "UUID",
	} {
		bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			cfg.KeyFormat = format
			sink := open(t, cfg)
			mustTrack(t, sink, struct{}{})
			mustClose(t, sink)
			form := "^" + strings.ReplaceAll(want, "UUID", `[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`) + "$"
			if key := server.Objects(s3sinktest.Bucket)[0].Key; !regexp.MustCompile(form).MatchString(key) {
				t.Errorf("%s: key %s", format, key)
			}
		})
	}
}

func TestBadKeyFormats(t *testing.T) {
	t.Parallel()
	for format, want := range map[s3sink.KeyFormat]string{
		"{source}/{opened_ms}.gz":     "{uuid}",
		"{uuid}/{uuid}":               "{uuid}",
		"/{uuid}":                     "slash",
		"a//{uuid}":                   "slash",
		"{uuid}{nope}":                "{nope",
		"{uuid}{source":               "{source",
		"{uuid}}":                     "placeholders",
		"{uuid}\n":                    "printable",
		`a\b\{uuid}`:                  `not "\\"`,
		`a\..\{uuid}`:                 `not "\\"`,
		"a|b/{uuid}":                  `not "|"`,
		"{uuid}#x":                    `not "#"`,
		"50%/{uuid}":                  `not "%"`,
		"{uuid}{received_day:HH}":     "{received_day:HH",
		"{uuid}/{received_day:/YYYY}": "{received_day:/YYYY",
		"../{uuid}":                   "no folder",
		"a/./{uuid}":                  "no folder",
		"{uuid}/..":                   "no folder",
		"{uuid}/":                     "last slash",
		"{received_day:..}/{uuid}":    "no folder",
		s3sink.KeyFormat(strings.Repeat("x", 1000) + "{uuid}"): "1024 bytes",
	} {
		cfg := new(nullStore).config()
		cfg.KeyFormat = format
		_, err := s3sink.New(t.Context(), cfg)
		var wrong *s3sink.ConfigError
		if !errors.As(err, &wrong) || wrong.Field != "KeyFormat" || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, want an error that says %q", format, err, want)
		}
	}
}

// Given any source ids, then each is one folder, and different ids have
// different folders.
func TestSourceID_OneFolderEach(t *testing.T) {
	t.Parallel()
	server, cfg := s3sinktest.New(t)
	sink := open(t, cfg)
	for id, want := range map[string]string{
		"checkout-EU_1.web=2": "checkout-EU_1.web=2",
		"../../etc":           "..~2f..~2fetc",
		"..":                  "~2e~2e",
		".":                   "~2e",
		"a b/c":               "a~20b~2fc",
		"~20":                 "~7e20",
		"\x00\r\n\x7f":        "~00~0d~0a~7f",
		"é":                   "~c3~a9",
		"\u202e":              "~e2~80~ae",
		"\xff":                "~ff",
	} {
		src, err := sink.Source(id)
		if err != nil {
			t.Fatal(err)
		}
		if err := src.TrackLine(fmt.Appendf(nil, `{"id":%q}`, want)); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, sink)
	all := objects(t, server, s3sinktest.Bucket)
	if len(all) != 10 {
		t.Errorf("%d objects, want 10", len(all))
	}
	for _, o := range all {
		folder := strings.Split(o.Key, "/")[1]
		if want := fmt.Sprintf(`{"id":%q}`, folder); len(strings.Split(o.Key, "/")) != 4 || o.lines[0] != want {
			t.Errorf("%s holds %s", o.Key, o.lines[0])
		}
	}
}
