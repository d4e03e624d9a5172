package main

import (
	"cmp"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/s3sink/s3sink"
)

// printStart prints the bucket, the identity and the events before they are
// sent.
func printStart(w io.Writer, o options, to *store) {
	where := fmt.Sprintf("bucket %s", to.config.Bucket)
	if to.config.Region != "" {
		where += " in " + to.config.Region
	}
	switch {
	case to.embedded:
		where += ", in an S3 and STS inside this program"
	case o.endpoint != "":
		where += ", at " + o.endpoint
	}
	as := fmt.Sprint(cmp.Or(to.config.Credentials, s3sink.Ambient()))
	if to.embedded || o.externalID != "" {
		as += ", assumed with an external id"
	}
	events := fmt.Sprintf("%d Segment calls of all six types (source %s), events of GitHub's timeline (source %s)", sampleCalls, o.source, githubSource)
	if o.stdin {
		events = fmt.Sprintf("standard input (source %s)", o.source)
	}
	fmt.Fprintf(w, "s3sink quickstart\n  to      %s\n  as      %s\n  events  %s\n", where, as, events)
}

// printSent prints the statistics of the sink.
func printSent(w io.Writer, s *shipment) {
	section(w, "Sent")
	st := s.stats
	rate := int64(float64(st.RawBytes) / s.took.Seconds())
	fmt.Fprintf(w, "  %d of %d events are in the bucket: %s of NDJSON in %.2f s (%s/s)\n",
		st.Delivered, st.Accepted, size(st.RawBytes), s.took.Seconds(), size(rate))
	if s.skipped > 0 {
		fmt.Fprintf(w, "  %d lines skipped: they are not events\n", s.skipped)
	}
	if s.interrupted {
		fmt.Fprintln(w, "  interrupted: events that had not been read were not sent")
	}
}

// Limits of the list of objects: a list longer than maxShown is abbreviated to
// the first and the last objects.
const (
	maxShown   = 20
	shownFirst = 5
	shownLast  = 3
)

// printObjects prints a table of objects and their totals.
func printObjects(w io.Writer, title string, objects []s3sink.ObjectInfo) {
	section(w, title)
	objects = sortByKey(objects)
	var sum s3sink.ObjectInfo
	for _, o := range objects {
		sum.Events += o.Events
		sum.RawBytes += o.RawBytes
		sum.Bytes += o.Bytes
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer t.Flush()
	// The key is the last column because it is long.
	row := func(o s3sink.ObjectInfo, key string) {
		fmt.Fprintf(t, "%d\t%s\t%s\t%.1f\t  %s\n", o.Events, size(o.RawBytes), size(o.Bytes), ratio(o), key)
	}
	fmt.Fprintln(t, "events\traw\tstored\tratio\t  key")
	for i, o := range objects {
		switch hidden := len(objects) - shownFirst - shownLast; {
		case len(objects) <= maxShown, i < shownFirst, i >= len(objects)-shownLast:
			row(o, o.Key)
		case i == shownFirst:
			fmt.Fprintf(t, "…\t…\t…\t…\t  … %d more\n", hidden)
		}
	}
	row(sum, fmt.Sprintf("in %s", count(len(objects), "object")))
}

func ratio(o s3sink.ObjectInfo) float64 { return float64(o.RawBytes) / float64(max(o.Bytes, 1)) }

// printFound prints the downloaded objects and the result of the check. It
// returns an error unless exactly the sent events came back.
func printFound(w io.Writer, s *shipment, f *findings) error {
	printObjects(w, "Objects, downloaded and decompressed", f.objects)
	section(w, "Check")
	in, out, same := s.ledger.totals()
	if same && len(f.missing) == 0 {
		fmt.Fprintf(w, "  events in %d = events out %d ✓\n", in, out)
	} else {
		fmt.Fprintf(w, "  events in %d, events out %d ✗ NOT THE SAME\n", in, out)
		same = false
	}
	for _, source := range s.ledger.sources() {
		a, verdict := s.ledger[source], "✓"
		if a.in != a.out {
			verdict = "✗"
		}
		fmt.Fprintf(w, "  source %s: in %d, out %d, compared by %s %s\n", source, a.in.events, a.out.events, a.compare, verdict)
	}
	for _, key := range f.missing[:min(len(f.missing), maxShown)] {
		fmt.Fprintf(w, "  not in the bucket: %s\n", key)
	}
	if !same {
		return fmt.Errorf("the downloaded events are not the sent events: %d in, %d out", in, out)
	}
	return nil
}

// printUnread prints the report of the sink when the bucket could not be read.
// A reader without permission to read is no error, except if S3 has not
// acknowledged all events.
func printUnread(w io.Writer, s *shipment, why error) error {
	printObjects(w, "Objects, as the sink reports them", s.uploaded())
	section(w, "Check")
	in, _, _ := s.ledger.totals()
	fmt.Fprintf(w, "  events in %d, acknowledged by S3 %d; NOT READ BACK:\n  %v\n", in, s.stats.Delivered, why)
	if denied(why) {
		fmt.Fprintln(w, "  Writing needs only s3:PutObject. Reading back needs s3:ListBucket and s3:GetObject as well,")
		fmt.Fprintln(w, "  for the identity of the AWS environment.")
	}
	switch {
	case !denied(why):
		return fmt.Errorf("read the objects back: %w", why)
	case in != s.stats.Delivered:
		return fmt.Errorf("%d events in, but S3 acknowledged %d", in, s.stats.Delivered)
	}
	return nil
}

// printHowToRead prints commands that show the first lines of an object.
func printHowToRead(w io.Writer, o options, to *store, objects []s3sink.ObjectInfo) {
	if len(objects) == 0 {
		return
	}
	section(w, "Read them back")
	key := sortByKey(objects)[0].Key
	fmt.Fprintln(w, "  Every object is a gzip file of newline-delimited JSON, one event on each line.")
	if !to.embedded {
		fmt.Fprintf(w, "    aws s3 cp %s -%s | gunzip -c | head -n 3\n", quote("s3://"+bucketName(to.config)+"/"+key), awsFlags(o))
	}
	if o.keep != "" {
		for _, folder := range folders(objects) {
			fmt.Fprintf(w, "    gunzip -c %s/*.gz | head -n 3\n", quote(path.Join(o.keep, folder)))
		}
		return
	}
	if to.embedded {
		fmt.Fprintln(w, "  These objects are in memory and are gone when the program ends. To keep them as files,")
		fmt.Fprintln(w, "  run the program with -keep DIR; to write to AWS, run it with -bucket (see -h).")
	}
}

// awsFlags returns the flags of the AWS CLI for the bucket.
func awsFlags(o options) (flags string) {
	if o.region != "" {
		flags += " --region " + quote(o.region)
	}
	if o.endpoint != "" {
		flags += " --endpoint-url " + quote(o.endpoint)
	}
	return flags
}

// quote returns a word quoted for a shell.
func quote(word string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/:._=,+@-", r)
	}
	if !strings.ContainsFunc(word, func(r rune) bool { return !plain(r) }) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

func section(w io.Writer, title string) { fmt.Fprintf(w, "\n%s\n", title) }

// bucketName returns the name of the bucket without the path after it.
func bucketName(cfg s3sink.Config) string {
	name, _, _ := strings.Cut(cfg.Bucket, "/")
	return name
}

func sortByKey(objects []s3sink.ObjectInfo) []s3sink.ObjectInfo {
	return slices.SortedFunc(slices.Values(objects), func(a, b s3sink.ObjectInfo) int { return strings.Compare(a.Key, b.Key) })
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// size formats a number of bytes with decimal units.
func size(n int64) string {
	units := []string{"kB", "MB", "GB", "TB"}
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1000, 0
	for v >= 1000 && unit < len(units)-1 {
		v, unit = v/1000, unit+1
	}
	return fmt.Sprintf("%.1f %s", v, units[unit])
}
