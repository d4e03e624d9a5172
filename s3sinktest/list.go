package s3sinktest

import (
	"encoding/base64"
	"encoding/xml"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const maxListKeys = 1000

type listXML struct {
	XMLName               xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
	Name                  string
	Prefix                string
	Delimiter             string `xml:",omitempty"`
	StartAfter            string `xml:",omitempty"`
	ContinuationToken     string `xml:",omitempty"`
	NextContinuationToken string `xml:",omitempty"`
	EncodingType          string `xml:",omitempty"`
	KeyCount              int
	MaxKeys               int
	IsTruncated           bool
	Contents              []listedObject
	CommonPrefixes        []listedPrefix
}

type listedObject struct {
	Key          string
	LastModified string
	ETag         string
	Size         int
	StorageClass string
}

type listedPrefix struct{ Prefix string }

// listing is what a ListObjectsV2 request asks for.
type listing struct {
	prefix, delimiter, startAfter string
	maxKeys                       int
	token                         string
	after                         string // from token: the last key or common prefix of the page before
	encode                        func(string) string
}

func parseListing(q url.Values) (l listing, err *apiError) {
	l = listing{
		prefix:     q.Get("prefix"),
		delimiter:  q.Get("delimiter"),
		startAfter: q.Get("start-after"),
		token:      q.Get("continuation-token"),
		maxKeys:    maxListKeys,
		encode:     func(s string) string { return s },
	}
	if v := q.Get("max-keys"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			return l, invalidArgument("Argument maxKeys must be an integer between 0 and 2147483647")
		}
		l.maxKeys = min(n, maxListKeys)
	}
	switch q.Get("encoding-type") {
	case "":
	case "url":
		l.encode = func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "%2F", "/") }
	default:
		return l, invalidArgument("Invalid Encoding Method specified in Request")
	}
	after, decodeErr := base64.URLEncoding.DecodeString(l.token)
	if decodeErr != nil || q.Has("continuation-token") && l.token == "" {
		return l, invalidArgument("The continuation token provided is incorrect")
	}
	l.after = string(after)
	return l, nil
}

func (s *Server) listObjects(c *call) answer {
	if err := s.authorize(c, actionList); err != nil {
		return c.refuse(err)
	}
	q := c.r.URL.Query()
	l, err := parseListing(q)
	if err != nil {
		return c.refuse(err)
	}
	page := listXML{
		Name:              c.bucket,
		Prefix:            l.encode(l.prefix),
		Delimiter:         l.encode(l.delimiter),
		StartAfter:        l.encode(l.startAfter),
		ContinuationToken: l.token,
		EncodingType:      q.Get("encoding-type"),
		MaxKeys:           l.maxKeys,
	}
	l.fill(&page, s.snapshot(c.bucket))
	return c.reply(http.StatusOK).withXML("application/xml", page)
}

// snapshot returns the bucket's objects, sorted by key.
func (s *Server) snapshot(bucket string) []storedObject {
	s.mu.Lock()
	objects := slices.Collect(maps.Values(s.buckets[bucket].objects))
	s.mu.Unlock()
	slices.SortFunc(objects, func(a, b storedObject) int { return strings.Compare(a.Key, b.Key) })
	return objects
}

// fill puts one page's worth of the sorted objects into page. An item is a key
// or, with a delimiter, the common prefix of several; max-keys counts items and
// the token names the last one.
func (l listing) fill(page *listXML, objects []storedObject) {
	last := ""
	for _, o := range objects {
		if o.Key <= l.startAfter || !strings.HasPrefix(o.Key, l.prefix) {
			continue
		}
		item, common := l.item(o.Key)
		if item <= l.after || common && item == last {
			continue
		}
		if page.KeyCount == l.maxKeys {
			if l.maxKeys > 0 { // S3 answers max-keys=0 with an empty page that is the last
				page.IsTruncated = true
				page.NextContinuationToken = base64.URLEncoding.EncodeToString([]byte(last))
			}
			return
		}
		page.KeyCount++
		last = item
		if common {
			page.CommonPrefixes = append(page.CommonPrefixes, listedPrefix{l.encode(item)})
			continue
		}
		page.Contents = append(page.Contents, listedObject{
			Key:          l.encode(o.Key),
			LastModified: o.LastModified.UTC().Format("2006-01-02T15:04:05.000Z"),
			ETag:         o.ETag,
			Size:         len(o.Body),
			StorageClass: o.StorageClass,
		})
	}
}

// item is what a key is listed as.
func (l listing) item(key string) (item string, common bool) {
	if l.delimiter == "" {
		return key, false
	}
	end := strings.Index(key[len(l.prefix):], l.delimiter)
	if end < 0 {
		return key, false
	}
	return key[:len(l.prefix)+end+len(l.delimiter)], true
}
