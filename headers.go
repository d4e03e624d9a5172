package s3sink

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/s3sink/s3sink/internal/s3put"
)

// Content headers of [Config].ContentType and ContentEncoding.
const (
	// DefaultContentType describes the bytes of the object. It is sent without a
	// Content-Encoding, with which HTTP clients would decompress the object on
	// download, some of them only in part.
	DefaultContentType = "application/gzip"

	// SegmentContentType and SegmentContentEncoding are the headers of
	// Segment's older S3 destination. Use them for readers that rely on
	// decompression by the HTTP client.
	SegmentContentType     = "text/plain"
	SegmentContentEncoding = "gzip"
)

// Names and bounds are S3's:
// https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
var (
	cannedACLs = []string{"private", "public-read", "public-read-write", "authenticated-read",
		"aws-exec-read", "bucket-owner-read", "bucket-owner-full-control"}
	storageClass   = regexp.MustCompile(`^[A-Z][A-Z0-9_]{1,63}$`)
	awsStorage     = []string{"STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER", "DEEP_ARCHIVE", "OUTPOSTS", "GLACIER_IR", "SNOW", "EXPRESS_ONEZONE"}
	accountID      = regexp.MustCompile(`^[0-9]{12}$`)
	metadataName   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)
	headerValue    = regexp.MustCompile(`^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$`)
	tagText        = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+@-]*$`)
	maxTags        = 10
	maxTagKey      = 128 // characters
	maxTagValue    = 256
	maxMetadata    = 2048 - 384 // S3's 2 KB of names and values, minus the sink's own metadata
	metadataPrefix = "s3sink-"
)

func (c *Config) checkHeaders(errs *configErrors) {
	c.Encryption.check(errs)
	if c.ACL != "" && !slices.Contains(cannedACLs, c.ACL) {
		errs.add("ACL", c.ACL, "a canned ACL: "+strings.Join(cannedACLs, ", "))
	}
	if s := c.StorageClass; s != "" && (!storageClass.MatchString(s) || c.Endpoint == "" && !slices.Contains(awsStorage, s)) {
		errs.add("StorageClass", s, "a storage class of the store; AWS has "+strings.Join(awsStorage, ", "))
	}
	if c.ExpectedBucketOwner != "" && !accountID.MatchString(c.ExpectedBucketOwner) {
		errs.add("ExpectedBucketOwner", c.ExpectedBucketOwner, "an account id of 12 digits")
	}
	checkHeaderValue(errs, "ContentType", c.ContentType)
	if c.ContentEncoding != "" {
		checkHeaderValue(errs, "ContentEncoding", c.ContentEncoding)
	}
	checkMetadata(errs, c.Metadata)
	checkTags(errs, c.Tags)
}

func checkHeaderValue(errs *configErrors, field, value string) {
	if !headerValue.MatchString(value) {
		errs.add(field, value, "printable ASCII without spaces at its ends")
	}
}

func checkMetadata(errs *configErrors, metadata map[string]string) {
	size := 0
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		value := metadata[name]
		size += len(name) + len(value)
		if !metadataName.MatchString(name) || strings.HasPrefix(name, metadataPrefix) {
			errs.add("Metadata", name, "names of a-z 0-9 . _ -, not beginning with "+metadataPrefix)
		}
		checkHeaderValue(errs, "Metadata["+name+"]", value)
	}
	if size > maxMetadata {
		errs.add("Metadata", fmt.Sprintf("%d bytes", size), fmt.Sprintf("at most %d bytes of names and values", maxMetadata))
	}
}

func checkTags(errs *configErrors, tags map[string]string) {
	if len(tags) > maxTags {
		errs.add("Tags", fmt.Sprintf("%d tags", len(tags)), fmt.Sprintf("at most %d", maxTags))
	}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		if n := utf8.RuneCountInString(key); n < 1 || n > maxTagKey || !tagText.MatchString(key) || strings.HasPrefix(key, "aws:") {
			errs.add("Tags", key, "keys of 1 to 128 letters, digits, spaces or _.:/=+@-, not beginning with aws:")
		}
		if value := tags[key]; utf8.RuneCountInString(value) > maxTagValue || !tagText.MatchString(value) {
			errs.add("Tags["+key+"]", value, "a value of at most 256 letters, digits, spaces or _.:/=+@-")
		}
	}
}

// tagging returns the value of x-amz-tagging. url.Values encodes a space as "+",
// which AWS decodes but Ceph stores literally. Every store decodes %20.
func (c *Config) tagging() string {
	tags := url.Values{}
	for key, value := range c.Tags {
		tags.Set(key, value)
	}
	return strings.ReplaceAll(tags.Encode(), "+", "%20") // a literal + is %2B already
}

// headers returns the request headers of every upload. They follow the current
// Config, also for segments of previous runs. The headers that describe the
// content follow the segment.
func (c *Config) headers() s3put.Headers {
	return s3put.Headers{
		Encryption:          c.Encryption.headers(),
		ACL:                 c.ACL,
		StorageClass:        c.StorageClass,
		Tagging:             c.tagging(),
		Metadata:            maps.Clone(c.Metadata),
		ExpectedBucketOwner: c.ExpectedBucketOwner,
	}
}
