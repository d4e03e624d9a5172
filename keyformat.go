package s3sink

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/s3sink/s3sink/internal/uuid7"
)

// KeyFormat is a template of object keys, below the prefix. Placeholders:
//
//	{source}           the source id, escaped as [Sink.Source] says
//	{received_day_ms}  Unix milliseconds of 00:00 UTC of the day the events were received
//	{received_day:L}   the same day in layout L, made of YYYY, MM and DD
//	{opened_ms}        Unix milliseconds when the object's first block was ready
//	{opened_s}         the same in seconds
//	{host}             12 hex digits that stand for the host name
//	{version}          this library's version, which contains dots
//	{uuid}             a version 7 UUID, increasing within the process; required once
//
// The text between placeholders is printable ASCII, without the characters that S3
// advises to avoid in keys, \ ^ % ` " < > # | [ ]: tools and file systems give
// them another meaning.
//
// The key of an object never changes: a retry uses the same key.
type KeyFormat string

const (
	// SegmentKeys is the layout of Segment's S3 destinations, including the
	// parts of the file name. The version contains dots, so readers must not
	// split the file name at every dot.
	SegmentKeys KeyFormat = "segment-logs/{source}/{received_day_ms}/{opened_ms}.{host}.{version}.{uuid}.gz"

	// RudderStackKeys is the layout of RudderStack's S3 destination with the
	// documented policy, which only allows it to put objects. The day is the
	// received-day of the events; RudderStack uses the day of the upload.
	RudderStackKeys KeyFormat = "rudder-logs/{source}/{received_day:MM-DD-YYYY}/{opened_s}.{source}.{uuid}.json.gz"

	// RudderStackListedKeys is the layout of RudderStack's S3 destination when
	// it may also list the bucket and finds no keys with the older date format.
	RudderStackListedKeys KeyFormat = "rudder-logs/{source}/{received_day:YYYY-MM-DD}/{opened_s}.{source}.{uuid}.json.gz"

	// HiveKeys has a folder name=value for each partition column. Athena, Spark,
	// Trino and DuckDB use these folders to skip partitions.
	HiveKeys KeyFormat = "events/source={source}/day={received_day:YYYY-MM-DD}/{opened_ms}-{uuid}.json.gz"
)

// maxKeyBytes is the limit of S3.
const maxKeyBytes = 1024

// avoidInKeys are the "characters to avoid" of
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html, except
// braces, which enclose placeholders, and ~, which escapes source ids. The most
// dangerous one is the backslash: it separates folders on Windows, so "a\..\b"
// leaves the folder a.
const avoidInKeys = "\\^%`\"<>#|[]"

// keyData holds the values of the placeholders of a key.
type keyData struct {
	source string // escaped
	day    time.Time
	opened time.Time
	uuid   string
}

type keyTemplate []func(keyData) string

func (t keyTemplate) key(d keyData) string {
	var b strings.Builder
	for _, part := range t {
		b.WriteString(part(d))
	}
	return b.String()
}

// longest returns the length of the longest key for a source id.
func (t keyTemplate) longest(source string) int {
	far := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	return len(t.key(keyData{source: source, day: far, opened: far, uuid: strings.Repeat("0", uuid7.Len)}))
}

// compile turns a format into a template, or returns the rule that it breaks.
func (f KeyFormat) compile() (keyTemplate, error) {
	text := string(f)
	if strings.HasPrefix(text, "/") || strings.Contains(text, "//") {
		return nil, errors.New("no leading and no double slash: S3 would show folders without a name")
	}
	if strings.Count(text, "{uuid}") != 1 {
		return nil, errors.New("{uuid} exactly once: without it two objects could share a key")
	}
	var t keyTemplate
	for text != "" {
		literal, rest, found := strings.Cut(text, "{")
		if strings.ContainsAny(literal, "}") || !printable(literal) {
			return nil, fmt.Errorf("only printable ASCII and whole placeholders, not %q", literal)
		}
		if i := strings.IndexAny(literal, avoidInKeys); i >= 0 {
			return nil, fmt.Errorf("none of the characters %s, not %q: S3 advises against them in keys, because tools and file systems read them as something else", avoidInKeys, literal[i:i+1])
		}
		t = append(t, func(keyData) string { return literal })
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		part, err := placeholder(name)
		if err != nil || !closed {
			return nil, fmt.Errorf("a known placeholder, not {%s", name)
		}
		t = append(t, part)
		text = after
	}
	return t, t.checkFolders()
}

// checkFolders refuses keys that tools which copy a bucket to a disk cannot map to
// a file inside a folder.
func (t keyTemplate) checkFolders() error {
	key := t.key(keyData{source: "source", day: time.UnixMilli(0).UTC(), opened: time.UnixMilli(0), uuid: "uuid"})
	for _, part := range strings.Split(key, "/") {
		if part == "" || part == "." || part == ".." {
			return errors.New(`a name after the last slash, and no folder "." or ".."`)
		}
	}
	return nil
}

func placeholder(name string) (func(keyData) string, error) {
	if layout, ok := strings.CutPrefix(name, "received_day:"); ok {
		goLayout := strings.NewReplacer("YYYY", "2006", "MM", "01", "DD", "02").Replace(layout)
		between := strings.NewReplacer("YYYY", "", "MM", "", "DD", "").Replace(layout)
		if strings.Trim(between, "-_./") != "" || strings.Contains("/"+layout+"/", "//") {
			return nil, errors.New("bad layout")
		}
		return func(d keyData) string { return d.day.Format(goLayout) }, nil
	}
	switch name {
	case "source":
		return func(d keyData) string { return d.source }, nil
	case "received_day_ms":
		return func(d keyData) string { return strconv.FormatInt(d.day.UnixMilli(), 10) }, nil
	case "opened_ms":
		return func(d keyData) string { return strconv.FormatInt(d.opened.UnixMilli(), 10) }, nil
	case "opened_s":
		return func(d keyData) string { return strconv.FormatInt(d.opened.Unix(), 10) }, nil
	case "host":
		return func(keyData) string { return hostID() }, nil
	case "version":
		return func(keyData) string { return version }, nil
	case "uuid":
		return func(d keyData) string { return d.uuid }, nil
	}
	return nil, errors.New("unknown placeholder")
}

// hostID distinguishes the objects of different hosts. It is a hash, so that the
// keys do not show host names to everyone who can list the bucket.
var hostID = sync.OnceValue(func() string {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:6])
})

// escapeSource makes a source id safe inside a key, reversibly: letters, digits
// and . _ = - stay as they are, and every other byte becomes ~ and two hex digits.
// The ids "." and ".." are escaped too, because tools that copy a bucket to a disk
// would write outside the folder.
func escapeSource(id string) string {
	if id == "." || id == ".." {
		return strings.ReplaceAll(id, ".", "~2e")
	}
	var b strings.Builder
	for i := range len(id) {
		c := id[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("._=-", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "~%02x", c)
		}
	}
	return b.String()
}

// splitBucket splits "name/path/prefix", which Segment's bucket setting allows, and
// joins the path with prefix. Both may have slashes at their ends.
func splitBucket(bucket, prefix string) (name, path string) {
	name, path, _ = strings.Cut(bucket, "/")
	parts := strings.FieldsFunc(path+"/"+prefix, func(r rune) bool { return r == '/' })
	return name, strings.Join(parts, "/")
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) < 0
}
