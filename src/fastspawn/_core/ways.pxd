cdef int check_way() except -1
cpdef tells_stages()
