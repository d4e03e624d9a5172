// Package deflate turns blocks of lines into frames: raw deflate that ends in
// a sync flush, so that frames put one after another are one deflate stream,
// and with [Header] before and [Trailer] after them one gzip member.
//
// One member matters. Chromium, Firefox, curl and several standard libraries
// return only the first member of a gzip file that has more, without an error.
package deflate
