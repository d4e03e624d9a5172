package s3sink

import (
	"encoding/hex"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var (
	aFolder = regexp.MustCompile(`^([A-Za-z0-9._=-]|~[0-9a-f]{2})+$`)
	escape  = regexp.MustCompile(`~[0-9a-f]{2}`)
)

// Given any source id, then its escaped form is one folder name, and can be
// decoded.
func FuzzEscapeSource(f *testing.F) {
	for _, id := range []string{"checkout", "../../x", "/abs", "a//b", ".", "..", "...", "%2e%2e", `\`, "\x00", "\r\n", "\x7f", "\u202e", "e\u0301", "~2e", "\xff", strings.Repeat("é", 128)} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if checkSourceID("SourceID", id) != nil {
			return
		}
		got := escapeSource(id)
		if !aFolder.MatchString(got) || path.Clean("a/"+got+"/b") != "a/"+got+"/b" {
			t.Errorf("%q became %q", id, got)
		}
		back := escape.ReplaceAllStringFunc(got, func(s string) string {
			b, _ := hex.DecodeString(s[1:]) // the pattern ensures valid hex
			return string(b)
		})
		if back != id {
			t.Errorf("%q became %q, which reads as %q", id, got, back)
		}
	})
}

// Given a valid Config, then its keys are valid in S3: at most 1,024 bytes of
// UTF-8, below the prefix, and different for each object.
func FuzzKeyFormat(f *testing.F) {
	for _, format := range []KeyFormat{SegmentKeys, RudderStackKeys, RudderStackListedKeys, HiveKeys, "{uuid}", "{source}{source}{uuid}", "{received_day:MMDD}-{uuid}"} {
		f.Add(string(format), "path/to", "/prefix/", "source", int64(946684800))
		f.Add(string(format), "", "é/", "../x", int64(4102444799))
		f.Add(string(format), strings.Repeat("p", 300), "", strings.Repeat("/", 256), int64(0)) // too long, but only after escaping
	}
	f.Fuzz(func(t *testing.T, format, folder, prefix, source string, seconds int64) {
		cfg := Config{
			Bucket: "bucket/" + folder, Prefix: prefix, SourceID: source, KeyFormat: KeyFormat(format),
			Credentials: AccessKeys("AKIA", "secret", ""),
		}.withDefaults()
		at := time.Unix(seconds, 0).UTC()
		if cfg.validate() != nil || at.Year() < 1970 || at.Year() > 9999 {
			return
		}
		template, err := cfg.KeyFormat.compile()
		if err != nil {
			t.Fatalf("accepted and then not: %v", err)
		}
		_, below := cfg.place()
		key := func(uuid string) string {
			return below + template.key(keyData{source: escapeSource(source), day: at.Truncate(24 * time.Hour), opened: at, uuid: uuid})
		}
		const one, other = "00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002"
		got := key(one)
		if len(got) > maxKeyBytes || !utf8.ValidString(got) || !strings.HasPrefix(got, below) || strings.HasPrefix(got, "/") || strings.Contains(got, "//") {
			t.Errorf("%q makes the key %q", cfg.KeyFormat, got)
		}
		if key(other) == got || strings.Count(got, one) == 0 {
			t.Errorf("%q makes the key %q of any object", cfg.KeyFormat, got)
		}
	})
}
