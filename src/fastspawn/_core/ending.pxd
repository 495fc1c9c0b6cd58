cdef void start_recording() noexcept
