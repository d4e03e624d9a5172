package s3sinktest

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	aclHeader     = "X-Amz-Acl"
	classHeader   = "X-Amz-Storage-Class"
	taggingHeader = "X-Amz-Tagging"

	// https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
	maxTags     = 10
	maxTagKey   = 128
	maxTagValue = 256
)

// checkACL answers for canned ACLs. Where the bucket has ACLs they are recorded
// and mean nothing. Grants are refused.
func (s *Server) checkACL(c *call) *apiError {
	acl := c.r.Header.Get(aclHeader)
	canned := []string{"", "private", "public-read", "public-read-write", "authenticated-read",
		"aws-exec-read", "bucket-owner-read", "bucket-owner-full-control"}
	place, _ := s.place(c.bucket)
	enforced := place.Ownership == "" || place.Ownership == ownerEnforced
	switch {
	case !slices.Contains(canned, acl):
		return invalidArgument("The canned ACL you specified is not valid")
	case enforced && acl != "" && acl != "bucket-owner-full-control":
		return &apiError{status: 400, code: "AccessControlListNotSupported", message: "The bucket does not allow ACLs"}
	}
	for name := range c.r.Header {
		if strings.HasPrefix(name, "X-Amz-Grant-") {
			return refuseHeaders(c, name)
		}
	}
	return nil
}

var (
	tagText   = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)
	systemTag = regexp.MustCompile(`(?i)^aws:`)
)

func checkTags(c *call) *apiError {
	tags, err := url.ParseQuery(c.r.Header.Get(taggingHeader))
	if err != nil {
		return wrongTagging()
	}
	if len(tags) > maxTags {
		return &apiError{status: 400, code: "BadRequest", message: "Object tags cannot be greater than 10"}
	}
	for key, values := range tags {
		switch {
		case len(values) > 1:
			return wrongTagging()
		case systemTag.MatchString(key):
			return invalidTag("System tags cannot be added/updated by requester")
		case key == "" || utf8.RuneCountInString(key) > maxTagKey || !tagText.MatchString(key):
			return invalidTag("The TagKey you have provided is invalid")
		case utf8.RuneCountInString(values[0]) > maxTagValue || !tagText.MatchString(values[0]):
			return invalidTag("The TagValue you have provided is invalid")
		}
	}
	return nil
}

func wrongTagging() *apiError {
	return invalidArgument("The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
}

func invalidTag(message string) *apiError {
	return &apiError{status: 400, code: "InvalidTag", message: message}
}

// tags reads a header that has been checked.
func tags(h http.Header) map[string]string {
	out := make(map[string]string)
	query, _ := url.ParseQuery(h.Get(taggingHeader))
	for key := range query {
		out[key] = query.Get(key)
	}
	return out
}
