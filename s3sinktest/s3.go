package s3sinktest

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"
)

const maxKey = 1024

// storedObject is an object and what GetObject says about it. It never changes
// once stored.
type storedObject struct {
	Object
	header http.Header
}

// s3Operation names the operation of an S3 request. An operation that the server
// does not know is named by its method.
func s3Operation(c *call) string {
	query := c.r.URL.Query()
	if c.key == "" {
		switch {
		case c.bucket == "":
			return c.r.Method
		case c.r.Method == http.MethodHead:
			return "HeadBucket"
		case c.r.Method == http.MethodGet && query.Get("list-type") == "2":
			return "ListObjectsV2"
		}
		return c.r.Method
	}
	// Anything but x-id asks for a subresource, a version or a part.
	query.Del("x-id")
	if len(query) > 0 {
		return c.r.Method
	}
	switch c.r.Method {
	case http.MethodPut:
		if c.r.Header.Get("X-Amz-Copy-Source") != "" {
			return "CopyObject"
		}
		return "PutObject"
	case http.MethodGet:
		return "GetObject"
	case http.MethodHead:
		return "HeadObject"
	case http.MethodDelete:
		return "DeleteObject"
	}
	return c.r.Method
}

func (s *Server) handleS3(c *call) answer {
	handler := map[string]func(*call) answer{
		"PutObject":     s.putObject,
		"GetObject":     s.getObject,
		"HeadObject":    s.getObject,
		"HeadBucket":    s.headBucket,
		"ListObjectsV2": s.listObjects,
		"DeleteObject":  methodNotAllowed,
	}[c.operation]
	if handler == nil {
		return c.refuse(notImplemented("A header or parameter you provided implies functionality that is not implemented."))
	}
	if err := s.checkBucket(c); err != nil {
		return c.refuse(err)
	}
	return handler(c)
}

func methodNotAllowed(c *call) answer {
	return c.refuse(&apiError{status: 405, code: "MethodNotAllowed",
		message: "The specified method is not allowed against this resource.",
		details: []xmlElement{detail("Method", c.r.Method), detail("ResourceType", "OBJECT")}})
}

// checkBucket answers for what all operations have in common.
func (s *Server) checkBucket(c *call) *apiError {
	place, ok := s.place(c.bucket)
	if !ok {
		return &apiError{status: 404, code: "NoSuchBucket", message: "The specified bucket does not exist",
			details: []xmlElement{detail("BucketName", c.bucket)}}
	}
	if owner := c.r.Header.Get("X-Amz-Expected-Bucket-Owner"); owner != "" && owner != place.owner() {
		return accessDenied("Access Denied")
	}
	if len(c.key) > maxKey {
		return &apiError{status: 400, code: "KeyTooLongError", message: "Your key is too long",
			details: []xmlElement{detail("Size", strconv.Itoa(len(c.key))), detail("MaxSizeAllowed", strconv.Itoa(maxKey))}}
	}
	return nil
}

// authorize says whether the caller may do this to the call's bucket or object.
func (s *Server) authorize(c *call, action string) *apiError {
	if c.caller.arn == "" {
		return accessDenied("Access Denied") // public access is blocked, as it is by default
	}
	place, _ := s.place(c.bucket)
	q := question{who: c.caller, action: action, resource: place.arn(c.bucket), context: s3Context(c.r)}
	if action != actionList {
		q.resource += "/" + c.key
	}
	owner := cmp.Or(place.Owner, account(c.caller.arn))
	reason := s.decide(q, place.policy.ask(q), owner)
	switch {
	case reason == "":
		return nil
	case owner != account(c.caller.arn):
		return accessDenied("Access Denied") // S3 gives reasons to its own account alone
	}
	return q.denial(true, reason)
}

// s3Context are the condition keys of an S3 request. Headers that it does not
// have are keys that do not exist.
func s3Context(r *http.Request) map[string]string {
	context := map[string]string{"aws:securetransport": strconv.FormatBool(r.TLS != nil)}
	for key, header := range map[string]string{
		"s3:if-none-match":                               "If-None-Match",
		"s3:x-amz-acl":                                   aclHeader,
		"s3:x-amz-storage-class":                         classHeader,
		"s3:x-amz-server-side-encryption":                sseHeader,
		"s3:x-amz-server-side-encryption-aws-kms-key-id": sseKeyHeader,
	} {
		if values := r.Header.Values(header); len(values) > 0 {
			context[key] = values[0]
		}
	}
	return context
}

func accessDenied(message string) *apiError {
	return &apiError{status: 403, code: "AccessDenied", message: message}
}

func (s *Server) headBucket(c *call) answer {
	if err := s.authorize(c, actionList); err != nil {
		return c.refuse(err)
	}
	return c.reply(http.StatusOK)
}

// getObject is HeadObject as well; net/http leaves out the body.
func (s *Server) getObject(c *call) answer {
	if err := s.authorize(c, actionGet); err != nil {
		return c.refuse(err)
	}
	if err := refuseHeaders(c, "Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"); err != nil {
		return c.refuse(err)
	}
	obj, ok := s.lookup(c.bucket, c.key)
	if !ok {
		// A caller without s3:ListBucket does not learn that the key is missing.
		if err := s.authorize(c, actionList); err != nil {
			return c.refuse(err)
		}
		return c.refuse(&apiError{status: 404, code: "NoSuchKey", message: "The specified key does not exist.",
			details: []xmlElement{detail("Key", c.key)}})
	}
	if err := s.authorizeDecrypt(c, obj); err != nil {
		return c.refuse(err)
	}
	a := c.reply(http.StatusOK)
	withChecksum := c.r.Header.Get("X-Amz-Checksum-Mode") == "ENABLED"
	for name, values := range obj.header {
		if withChecksum || !strings.HasPrefix(name, checksumPrefix) {
			a.header[name] = values
		}
	}
	a.header.Set("Content-Length", strconv.Itoa(len(obj.Body)))
	a.body = obj.Body
	return a
}

// refuseHeaders answers requests for what the server cannot do, which would
// otherwise get an answer that only looks right.
func refuseHeaders(c *call, names ...string) *apiError {
	for _, name := range names {
		if c.r.Header.Get(name) != "" {
			e := notImplemented("A header you provided implies functionality that is not implemented")
			e.details = []xmlElement{detail("Header", name)}
			return e
		}
	}
	return nil
}
